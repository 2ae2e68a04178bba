-- orphan(meta, log, fence; finished ttl ms or '') -> ms until its lease ends, which may be over; '' if it will never be
-- taken over. A stream whose handover is over is ended first.
local s = load()
if not s then return '' end
reap(s, ARGV[1])
local f = redis.call('HMGET', KEYS[1], 'handover', 'until')
if s.status ~= 'streaming' or s.fence == '' or not f[1] then return '' end
return text(f[2] - now)
