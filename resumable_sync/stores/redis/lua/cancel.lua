-- cancel(meta, log, fence; token, finished ttl ms or '') -> 1 if this call ended it, or an
-- earlier one of this token.
local s = load()
if not s then return 0 end
reap(s, ARGV[2])
if s.status ~= 'streaming' then
  return (s.status == 'cancelled' and redis.call('HGET', KEYS[1], 'by') == ARGV[1]) and 1 or 0
end
finish(s, 'cancelled', '', ARGV[2])
redis.call('HSET', KEYS[1], 'by', ARGV[1])
return 1
