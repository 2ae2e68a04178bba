-- cancel(meta, log, fence; token, finished ttl ms or '') -> 1 if this call ended it, or an
-- earlier one of this token.
local s = load()
if not s then return 0 end
reap(s, ARGV[2])
if s.status ~= 'streaming' then
  if s.status ~= 'cancelled' or redis.call('HGET', KEYS[1], 'by') ~= ARGV[1] then return 0 end
  again(s)
  return 1
end
local shared = redis.call('HGET', KEYS[1], 'shared')
finish(s, 'cancelled', '', shared and s.expires - now or ARGV[2])
redis.call('HSET', KEYS[1], 'by', ARGV[1])
return 1
