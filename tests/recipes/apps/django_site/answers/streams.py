"""The context that commands and views share."""

import os

from resumable_sync import ResumableStreamContext, open_store

context = ResumableStreamContext(open_store(os.environ["STREAMS"]))
