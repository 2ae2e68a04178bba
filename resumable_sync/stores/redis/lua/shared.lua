-- Put in front of every script of one stream, with shared_write.lua after it: only what most of them need, since each call
-- makes all functions anew. KEYS, as all these scripts declare them:
--   1 meta   hash    generation, status, size, entries (chunks), rows (of the log), ttl, lease (from when on whoever
--                    looks ends it; gone once ended), expires, kept, created, updated, finished (server ms), error
--                    ('' or '=' and the text), metadata, by (the token of its cancel), fence (the token of the
--                    present term, or what its release or creation left; none if edition 1 began it). Where they differ
--                    from what most streams have: handover (ms), until (when the lease of its producer ends, ms),
--                    term, begin, empty (see Term in base.py), shared (1), sliding (0), notes; see notes.lua
--   2 log    stream  <generation>-0 {b: 1}, then <generation>-<end offset> {p: chunks joined, l: their lengths},
--                    last <generation>-18446744073709551615 {e: status, n: size, m: error}; {x: 1} if deleted
--   3 fence  string  the highest generation given out, kept for longer than the stream
local LAST, HOUR, time = '-18446744073709551615', 3600000, redis.call('TIME')
-- In replies and ids; tostring turns big numbers into 1e+15. redis.call writes whole numbers out by itself.
local function text(number) return string.format('%.0f', number) end
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- The server's ms until which the fence of a stream stays that lives until `ms`. The next generation is above its own by
-- the clock alone, unless that is set back: so an hour more, and until it is past the generation, for a day at most.
local function fenced(generation, ms)
  return math.max(ms, math.min(math.floor(generation / 1048.576), now + 24 * HOUR)) + HOUR
end
-- What a key holds; nil where its value is of another type, which somebody else put there.
local function get(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then return not string.find(reply.err, 'WRONGTYPE') and redis.call(...) or nil end
  return reply
end
-- The stream's state; else nil and {'missing'}, or {'damaged'} where a part of it was evicted, trimmed or replaced.
-- `expected`: the generation that an append is for. It goes without ttl, lease and error, of which no append that is
-- accepted makes use, and without a check of what it was given: this is done for every chunk.
local function load(expected)
  local f = expected
    and redis.pcall('HMGET', KEYS[1], 'size', 'entries', 'rows', 'expires', 'kept', 'generation', 'status', 'fence')
    or redis.pcall('HMGET', KEYS[1], 'size', 'entries', 'rows', 'expires', 'kept', 'generation', 'status', 'fence', 'ttl',
      'lease', 'error')
  if f.err and not get('HMGET', KEYS[1], 'generation') then return nil, {'damaged'} end
  if not (f[5] and f[6]) then return nil, {'missing'} end
  local size, entries, rows, expires, kept = tonumber(f[1]), tonumber(f[2]), tonumber(f[3]), tonumber(f[4]), tonumber(f[5])
  local generation, status, ttl, lease = f[6], f[7], expected and 0 or tonumber(f[9]), tonumber(f[10] or 0)
  if expires and expires <= now and expires >= 0 and expires % 1 == 0 then return nil, {'missing'} end
  if not (expires and size and entries and rows and ttl and kept and lease
    and (status == 'streaming' or status == 'done' or status == 'error' or status == 'cancelled'
      or status == 'interrupted')) then return nil, {'damaged'} end
  -- As in numbers.lua, all at once. What is not finite has no remainder.
  if expires % 1 + size % 1 + entries % 1 + rows % 1 + ttl % 1 + kept % 1 + lease % 1 ~= 0
    or expires < 0 or size < 0 or entries < 0 or rows < 0 or ttl < 0 or kept < 0 or lease < 0
    or math.max(expires, size, entries, rows, ttl, kept, lease) >= 9007199254740992
    or generation ~= expected and (not string.find(generation, '^%d+$')
      or #generation > 16 or #generation == 16 and generation >= '9007199254740992')
    or (redis.pcall('XLEN', KEYS[2]) ~= rows and get('XLEN', KEYS[2]) ~= rows) then return nil, {'damaged'} end
  return {generation = generation, status = status, size = size, entries = entries, rows = rows, ttl = ttl,
    expires = expires, kept = kept, lease = lease, error = f[11] or '', fence = f[8] or ''}
end
local function report(s)
  return {'found', s.generation, s.status, text(s.size), text(s.entries), s.error, '0', s.fence}
end
