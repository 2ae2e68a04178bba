-- Put in front of every script of one stream, after shared.lua: how its state is written.
-- Let the stream live `life` ms from now, and write its state. The keys live longer: not every append renews that.
-- HDEL comes first: it needs no memory, and after it a server without memory lets the rest of the script through.
local function keep(s, life, ...)
  redis.call('HDEL', KEYS[1], 'updated')
  s.expires = now + life
  if s.expires > s.kept then
    s.kept = s.expires + math.max(1000, math.floor(life / 8))
    for i = 1, 3 do redis.call('PEXPIREAT', KEYS[i], i < 3 and s.kept or fenced(s.generation, s.kept)) end
    redis.call('HSET', KEYS[1], 'kept', s.kept)
  end
  redis.call('HSET', KEYS[1], 'size', s.size, 'entries', s.entries, 'rows', s.rows, 'expires', s.expires,
    'updated', now, ...)
end
-- HDEL comes first, for the same reason.
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
-- What a repeated call writes that was carried out before: WAIT counts only what its own connection wrote.
local function again(s) redis.call('PEXPIREAT', KEYS[1], s.kept) end
-- A sign of life of the producer: its lease, what follows it, and its stream's life.
local function alive(s, grace, handover, life)
  if handover == '0' then
    keep(s, tonumber(life), 'lease', now + grace)
  else
    keep(s, tonumber(life), 'lease', now + grace + handover, 'until', now + grace)
  end
end
