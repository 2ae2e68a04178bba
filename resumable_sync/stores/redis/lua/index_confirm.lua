-- index_confirm(index zset, fresh zset, orphans zset, as in index_add; id, 1 if it was acquired, ms until somebody is to
--               look whether it waits to be taken over, '' for never) -> 1. The election is over.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '1' then
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
  if ARGV[3] ~= '' then redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[3]), ARGV[1]) end
end
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[1])
return 1
