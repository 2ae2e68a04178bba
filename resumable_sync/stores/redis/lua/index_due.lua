-- index_due(orphans zset, as in index_add; how many to pass over, how many to tell) -> id, score, … of those that somebody
-- is to look at by now, in order of their scores.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'WITHSCORES', 'LIMIT', ARGV[1], ARGV[2])
