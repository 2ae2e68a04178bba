-- Put in front of every script of one stream. KEYS, as all these scripts declare them:
--   1 meta   hash    generation, status, size, entries (chunks), rows (of the log), ttl, lease (gone once ended),
--                    expires, kept, created, updated, finished (server ms), error ('' or '=' and the text),
--                    metadata, token (of its acquire), by (the token of its cancel)
--   2 log    stream  <generation>-0 {b: 1}, then <generation>-<end offset> {p: chunks joined, l: their lengths},
--                    last <generation>-18446744073709551615 {e: status, n: size, m: error}; {x: 1} if deleted
--   3 fence  string  the highest generation given out, kept for longer than the stream
local LAST, DAY, time = '-18446744073709551615', 86400000, redis.call('TIME')
-- In replies and ids; tostring turns big numbers into 1e+15. redis.call itself writes whole numbers out.
local function text(number) return string.format('%.0f', number) end
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- The stream's state; else nil and {'missing'}, or {'damaged'} where a part of it was evicted or trimmed.
local function load()
  local f = redis.call('HMGET', KEYS[1], 'generation', 'status', 'size', 'entries', 'rows', 'ttl', 'expires',
    'kept', 'lease', 'error')
  if not (f[1] and f[8]) or tonumber(f[7]) <= now then return nil, {'missing'} end
  if redis.call('XLEN', KEYS[2]) ~= tonumber(f[5]) then return nil, {'damaged'} end
  return {generation = f[1], status = f[2], size = tonumber(f[3]), entries = tonumber(f[4]), rows = tonumber(f[5]),
    ttl = tonumber(f[6]), expires = tonumber(f[7]), kept = tonumber(f[8]), lease = tonumber(f[9] or 0),
    error = f[10] or ''}
end
local function report(s) return {'found', s.generation, s.status, text(s.size), text(s.entries)} end
-- Let the stream live `life` ms from now, and write its state. The keys live longer: not every append renews that.
local function keep(s, life, ...)
  s.expires = now + life
  if s.expires > s.kept then
    s.kept = s.expires + math.max(1000, math.floor(life / 8))
    for i = 1, 3 do redis.call('PEXPIREAT', KEYS[i], s.kept + (i == 3 and DAY or 0)) end
    redis.call('HSET', KEYS[1], 'kept', s.kept)
  end
  redis.call('HSET', KEYS[1], 'size', s.size, 'entries', s.entries, 'rows', s.rows, 'expires', s.expires,
    'updated', now, ...)
end
-- HDEL comes first: it needs no memory, and after it a server without memory lets the rest of the script through.
local function finish(s, status, message, life)
  redis.call('HDEL', KEYS[1], 'lease')
  redis.call('XADD', KEYS[2], s.generation .. LAST, 'e', status, 'n', s.size, 'm', message)
  s.status, s.error, s.rows, s.kept = status, message, s.rows + 1, 0
  life = life == '' and s.ttl or tonumber(life)
  keep(s, life, 'status', status, 'error', message, 'finished', now)
end
local function reap(s, life)
  if s.status == 'streaming' and s.lease <= now then finish(s, 'interrupted', '', life) end
end
