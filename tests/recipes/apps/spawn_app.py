"""multiprocessing: a child that is spawned produces, and exits at once."""

import multiprocessing

from resumable_sync import ResumableStreamContext, open_store


def export(url, stream_id, count):
    with open_store(url) as store, ResumableStreamContext(store) as context:
        context.produce(stream_id, lambda: (f"row {number}\n" for number in range(count)))


def export_elsewhere(url, stream_id, count):
    process = multiprocessing.get_context("spawn").Process(target=export, args=(url, stream_id, count))
    process.start()
    return process
