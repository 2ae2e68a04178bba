"""Celery: a task produces, and a Flask view follows, whoever comes first."""

import os

from celery import Celery
from flask import Flask, request

from resumable_sync import ResumableStreamContext, current_producer, open_store
from resumable_sync.wsgi import resume_sse_response

from .model import model_tokens

tasks = Celery("answers", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
tasks.conf.broker_connection_retry_on_startup = True
context = ResumableStreamContext(open_store(os.environ["STREAMS"]))


@tasks.task(bind=True, acks_late=True, reject_on_worker_lost=True, max_retries=30)
def answer(self, answer_id, question):
    status = context.produce(answer_id, lambda: model_tokens(question), restart={"interrupted"})
    if status == "streaming":  # by a worker that lives, or whose death is not known yet: see to it again
        raise self.retry(countdown=1)
    return status


@tasks.task
def answer_once(answer_id, question):
    return context.produce(answer_id, lambda: model_tokens(question))


@tasks.task(bind=True, acks_late=True, reject_on_worker_lost=True, max_retries=30)
def answer_on(self, answer_id, question, afterwards=""):
    """Delivered again after its process was lost, it goes on where the bytes end; then it does `afterwards`."""

    def make_stream():
        known = current_producer().offset
        for token in model_tokens(question):
            if known <= 0:
                yield token
            known -= len(token)

    status = context.produce(answer_id, make_stream, handover=60)
    if status == "streaming":
        raise self.retry(countdown=1)
    list(model_tokens(afterwards))
    return status


web = Flask(__name__)


@web.post("/answers/<answer_id>")
def start(answer_id):
    answer.delay(answer_id, request.get_data(as_text=True))
    return "", 202


@web.get("/answers/<answer_id>")
def follow(answer_id):
    return resume_sse_response(context, answer_id, wait=30)
