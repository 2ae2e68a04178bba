-- strike(index zset, fresh zset, as in register; since: server's ms, then ids) -> the ids that were struck off.
-- Ids whose election ended after `since`, or is still on its way, are left alone.
local struck = {}
for i = 2, #ARGV do
  local settled = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if not settled or tonumber(settled) < tonumber(ARGV[1]) then
    redis.call('ZREM', KEYS[2], ARGV[i])
    if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then struck[#struck + 1] = ARGV[i] end
  end
end
return struck
