"""RQ: a job produces, and whoever wants follows."""

import os

from redis import Redis
from rq import Queue

from resumable_sync import ResumableStreamContext, open_store

from .model import model_tokens

queue = Queue(connection=Redis.from_url(os.environ["BROKER"]))
context = ResumableStreamContext(open_store(os.environ["STREAMS"]))


def answer(answer_id, question):
    return context.produce(answer_id, lambda: model_tokens(question))


def ask(answer_id, question):
    queue.enqueue(answer, answer_id, question)
    return context.require_resume(answer_id, wait=30)
