-- Put in front of every script of one stream, after shared.lua: how its state is written.
-- Let the stream live `life` ms from now, and write its state. The keys live longer: not every append renews that.
-- HDEL comes first, unless this call has written: it needs no memory, and after a write a server without memory lets the
-- rest of the script through.
local function keep(s, life, ...)
  if not s.written then redis.call('HDEL', KEYS[1], 'updated') end
  s.expires = now + life
  if s.expires > s.kept then
    s.kept = s.expires + math.max(1000, math.floor(life / 8))
    for i = 1, 3 do redis.call('PEXPIREAT', KEYS[i], i < 3 and s.kept or fenced(s.generation, s.kept)) end
    redis.call('HSET', KEYS[1], 'kept', s.kept)
  end
  redis.call('HSET', KEYS[1], 'size', s.told or s.size, 'entries', s.entries, 'rows', s.rows, 'expires', s.expires,
    'updated', now, ...)
end
-- A sign of life of the producer: its lease, what follows it, and its stream's life.
local function alive(s, grace, handover, life)
  if handover == '0' then
    keep(s, tonumber(life), 'lease', now + grace)
  else
    keep(s, tonumber(life), 'lease', now + grace + handover, 'until', now + grace)
  end
end
