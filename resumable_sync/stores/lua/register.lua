-- register(index zset: the ids of all streams, score 0; id, max streams) -> 1, or 0 if the index is full.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 1 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
return redis.call('ZADD', KEYS[1], 0, ARGV[1])
