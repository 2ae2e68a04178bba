"""Streams in Redis, for applications on many machines; see `RedisStore`."""

try:
    import redis.exceptions  # noqa: F401
except ImportError as missing:
    raise ImportError('RedisStore needs the Redis client: pip install "resumable_sync[redis]"') from missing

from .store import RedisStore

__all__ = ["RedisStore"]
