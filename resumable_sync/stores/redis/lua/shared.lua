-- Put in front of every script of one stream, with shared_write.lua after it. KEYS, as all these scripts declare them:
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
-- A number as these scripts write it; nil for what somebody else put there.
local function whole(value)
  local number = tonumber(value)
  return number and number >= 0 and number < 9007199254740992 and number % 1 == 0 and number or nil
end
-- A generation, as text; nil for what somebody else put there.
local function as_generation(value) return value and whole(value) and string.match(value, '^%d+$') end
local STATUSES = {streaming = 1, done = 1, error = 1, cancelled = 1, interrupted = 1}
-- The stream's state; else nil and {'missing'}, or {'damaged'} where a part of it was evicted, trimmed or replaced.
local function load()
  local f = get('HMGET', KEYS[1], 'generation', 'status', 'size', 'entries', 'rows', 'ttl', 'expires', 'kept', 'lease',
    'error', 'fence')
  if f and not (f[1] and f[8]) then return nil, {'missing'} end
  if not f then return nil, {'damaged'} end
  local size, entries, rows, ttl = whole(f[3]), whole(f[4]), whole(f[5]), whole(f[6])
  local expires, kept, lease = whole(f[7]), whole(f[8]), whole(f[9] or 0)
  if expires and expires <= now then return nil, {'missing'} end
  if not (expires and size and entries and rows and ttl and kept and lease and STATUSES[f[2]] and as_generation(f[1]))
    or get('XLEN', KEYS[2]) ~= rows then return nil, {'damaged'} end
  return {generation = f[1], status = f[2], size = size, entries = entries, rows = rows, ttl = ttl, expires = expires,
    kept = kept, lease = lease, error = f[10] or '', fence = f[11] or ''}
end
local function report(s)
  return {'found', s.generation, s.status, text(s.size), text(s.entries), s.error, '0', s.fence}
end
