"""What writes to a file writes to a stream: logging, csv, a subprocess."""

import csv
import logging
import subprocess


def log_to(context, stream_id, work):
    logger = logging.getLogger("work")
    with context.writer(stream_id) as out:
        handler = logging.StreamHandler(out)
        logger.addHandler(handler)
        try:
            work(logger)
        finally:
            logger.removeHandler(handler)


def export_csv(context, stream_id, rows):
    with context.writer(stream_id, metadata={"content-type": "text/csv"}) as out:
        csv.writer(out).writerows(rows)


def run_command(context, stream_id, command):
    with context.writer(stream_id) as out:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            out.on_cancel(process.kill)
            for line in process.stdout:
                out.write(line)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
