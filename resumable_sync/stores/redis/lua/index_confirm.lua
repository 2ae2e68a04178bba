-- index_confirm(index zset, fresh zset, as in index_add; id, 1 if it was acquired) -> 1. The election is over.
local time = redis.call('TIME')
if ARGV[2] == '1' then redis.call('ZADD', KEYS[1], 0, ARGV[1]) end
redis.call('ZADD', KEYS[2], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), ARGV[1])
return 1
