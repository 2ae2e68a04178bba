-- acquire(meta, log, fence; token, grace ms, handover ms, ttl ms, life ms, finished ttl ms or '', metadata, endings)
--   -> the new generation, or 0: somebody produces the stream, or it has ended, though as none of `endings`.
-- `token` is the caller's own, and the fence of its term: a repeated call is answered as the first one was.
local s = load()
if s then
  if s.fence == ARGV[1] then again(s) return s.generation end
  reap(s, ARGV[6])
  if s.status == 'streaming' or not string.find(ARGV[8], s.status, 1, true) then return 0 end
end
local lease = now + ARGV[2] + ARGV[3]
if ARGV[3] == '0' then
  s = begin(ARGV[1], lease, ARGV[4], ARGV[7])
else
  s = begin(ARGV[1], lease, ARGV[4], ARGV[7], 'handover', ARGV[3], 'until', now + ARGV[2])
end
keep(s, tonumber(ARGV[5]))
return s.generation
