-- release(meta, log, fence; generation, token, the fence in its place, offset, handover ms, grace ms,
--         finished ttl ms or '')
--   -> the server's ms, or the state that refuses it. Its last sign of life; without a handover the stream is ended.
local s, none = load()
if not s then return none end
if s.generation ~= ARGV[1] then return report(s) end
if s.fence == ARGV[3] then
  again(s)
  return now
end
if s.fence ~= ARGV[2] or s.status ~= 'streaming' or s.size < tonumber(ARGV[4]) then return report(s) end
if ARGV[5] == '0' then
  finish(s, 'interrupted', '', ARGV[7])
else
  alive(s, 0, ARGV[5], math.max(s.ttl, ARGV[5] + ARGV[6]))
end
redis.call('HSET', KEYS[1], 'fence', ARGV[3])
return now
