-- index_remove(index zset, fresh zset, orphans zset, as in index_add; since: server's ms, then ids)
--   -> the ids that were removed.
-- Ids whose election ended after `since`, or is still on its way, are left alone.
local removed = {}
for i = 2, #ARGV do
  local elected = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if not elected or tonumber(elected) < tonumber(ARGV[1]) then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('ZREM', KEYS[3], ARGV[i])
    if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then removed[#removed + 1] = ARGV[i] end
  end
end
return removed
