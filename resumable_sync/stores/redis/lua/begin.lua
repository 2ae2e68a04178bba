-- Put in front of the scripts that begin a stream, after shared_write.lua.
-- A new generation in place of what is there; to be followed by `keep` or `finish`. `lease`, `ttl`: ms; then fields of
-- meta.
local function begin(fence, lease, ttl, metadata, ...)
  -- The server's time in units of 2^-20 s, as in new_generation of contract.py: it grows even where the fence was lost.
  local generation = time[1] * 1048576 + math.floor(time[2] * 1048576 / 1000000)
  local last = whole(string.match(get('GET', KEYS[3]) or '0', '^%d+') or 0) or 0
  generation = text(math.max(generation, last + 1, (whole(get('HGET', KEYS[1], 'generation') or 0) or 0) + 1))
  -- Only where something is left: a deletion would open the way for the rest on a server without memory.
  if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then redis.call('UNLINK', KEYS[1], KEYS[2]) end
  -- What every append writes comes first, then what it reads: Redis looks for a field of a small hash from the front.
  redis.call('HSET', KEYS[1], 'lease', lease, 'size', 0, 'entries', 0, 'rows', 1, 'expires', 0, 'updated', now, 'kept', 0,
    'generation', generation, 'status', 'streaming', 'fence', fence, 'ttl', ttl, 'error', '', 'created', now,
    'metadata', metadata, ...)
  redis.call('XADD', KEYS[2], generation .. '-0', 'b', '1')
  redis.call('SET', KEYS[3], generation)
  return {generation = generation, status = 'streaming', size = 0, entries = 0, rows = 1, kept = 0, ttl = tonumber(ttl),
    error = '', fence = fence, written = true}
end
