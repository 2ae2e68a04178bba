-- touch(meta, log, fence; grace ms, finished ttl ms or '') -> 1, or 0 if there is no such stream.
-- Renews its life, if signs of life do, but nobody's lease.
local s = load()
if not s then return 0 end
reap(s, ARGV[2])
local f = redis.call('HMGET', KEYS[1], 'shared', 'sliding', 'handover')
local life = s.ttl
if f[1] then
  if f[2] == '0' then life = 0 end
elseif s.status == 'streaming' then
  if f[3] then life = math.max(life, ARGV[1] + f[3]) end
elseif ARGV[2] ~= '' then
  life = tonumber(ARGV[2])
end
keep(s, math.max(life, s.expires - now))
return 1
