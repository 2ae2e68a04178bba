"""The public name of the store contract. It is written in `resumable_sync.contract`."""

from .contract import *  # noqa: F401,F403
from .contract import __all__  # noqa: F401
