-- take_over(meta, log, fence; generation, token, grace ms, finished ttl ms or '', max empty terms)
--   -> {size, term, ttl ms, handover ms}, or 0: there is nothing to take over. The token is the fence of the new term: a
--      repeated call is answered as the first one was.
-- As Term.next of base.py: after so many terms that stored nothing, the stream is ended.
local s = load()
if not s or s.generation ~= ARGV[1] then return 0 end
local f = redis.call('HMGET', KEYS[1], 'handover', 'until', 'term', 'begin', 'empty')
local term = tonumber(f[3] or 1)
if s.fence == ARGV[2] then
  again(s)
else
  if s.fence == '' or not f[1] then return 0 end
  reap(s, ARGV[4])
  if s.status ~= 'streaming' or tonumber(f[2]) > now then return 0 end
  local empty = s.size == tonumber(f[4] or 0) and (f[5] or 0) + 1 or 0
  if empty >= tonumber(ARGV[5]) then
    finish(s, 'interrupted', '', ARGV[4])
    return 0
  end
  term = term + 1
  redis.call('HSET', KEYS[1], 'fence', ARGV[2], 'term', term, 'begin', s.size, 'empty', empty)
  alive(s, ARGV[3], f[1], math.max(s.ttl, ARGV[3] + f[1]))
end
return {text(s.size), text(term), text(s.ttl), f[1]}
