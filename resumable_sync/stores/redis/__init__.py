"""Streams in Redis (6.2 or later, Valkey), for applications on many machines; also with Sentinel or Cluster.

**Keys** of stream ID, with the default prefix; one hash tag, so all live in one slot of a Cluster:

- `resumable:{ID}:meta`, hash: state, lease, size, times, notes; 350 bytes, the metadata and the notes.
- `resumable:{ID}:log`, stream: `<generation>-<end offset>` with `p`, the bytes of one append (chunks joined, up
  to 64 KiB), and `l`, the chunks' lengths as little-endian uint32, left out for a single chunk. The first entry
  is `<generation>-0`; the last, once the stream has ended, `<generation>-18446744073709551615` with the ending.
  A chunk of 64 bytes takes 88 bytes appended alone, 83 in a group commit.
- `resumable:{ID}:fence`, string: the highest generation given out; stays an hour longer than the stream (or more,
  where the server's clock was set back meanwhile); 72 bytes.
- `resumable:{~}:index`, `:fresh`, `:orphans`, sorted sets: the ids of all streams, of those lately acquired, and
  of those with a handover.
- `resumable:wake:…`: one short-lived key for each process that reads.

All keys of a stream expire together, a little (an eighth of the ttl) after the stream's own life, so that not
every append must renew them. Any `allkeys-*` or `volatile-*` eviction policy may take them: then readers and
producer get StreamLostError. Use `noeviction`: appends fail while memory is full, endings and reads do not.

**Commands** that a restricted user needs, on the keys `~resumable:*`: `+eval +evalsha +hmget +hget +hset +hdel
+hgetall +xlen +xadd +xrange +xread +get +set +exists +unlink +pexpire +pexpireat +time +zadd +zscore +zcard
+zremrangebyscore +zrem +zrangebylex +zrangebyscore`; with `wait_replicas` also `+wait`, on a Cluster
`+cluster|slots +asking`.
"""

try:
    import redis.exceptions  # noqa: F401
except ImportError as missing:
    raise ImportError('RedisStore needs the Redis client: pip install "resumable_sync[redis]"') from missing

from .store import RedisStore

__all__ = ["RedisStore"]
