-- acquire(meta, log, fence; token, grace ms, ttl ms, finished ttl ms or '', metadata, endings)
--   -> the new generation, or 0: somebody produces the stream, or it has ended, though as none of `endings`.
-- `token` is the caller's own: a repeated call is answered as the first one was.
local s = load()
if s then
  if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then return s.generation end
  reap(s, ARGV[4])
  if s.status == 'streaming' or not string.find(ARGV[6], s.status, 1, true) then return 0 end
end
-- The server's time in units of 2^-20 s, as in new_generation of contract.py: it grows even where the fence was lost.
local generation = time[1] * 1048576 + math.floor(time[2] * 1048576 / 1000000)
local fence = tonumber(string.match(get('GET', KEYS[3]) or '0', '^%d+') or 0)
generation = math.max(generation, fence + 1, tonumber(get('HGET', KEYS[1], 'generation') or 0) + 1)
-- Only where something is left: a deletion would open the way for the rest on a server without memory.
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then redis.call('UNLINK', KEYS[1], KEYS[2]) end
s = {generation = text(generation), status = 'streaming', size = 0, entries = 0, rows = 1, kept = 0, error = ''}
redis.call('HSET', KEYS[1], 'generation', s.generation, 'token', ARGV[1], 'lease', now + ARGV[2],
  'ttl', ARGV[3], 'metadata', ARGV[5], 'created', now, 'status', s.status, 'error', s.error)
redis.call('XADD', KEYS[2], s.generation .. '-0', 'b', '1')
redis.call('SET', KEYS[3], s.generation)
keep(s, tonumber(ARGV[3]))
return s.generation
