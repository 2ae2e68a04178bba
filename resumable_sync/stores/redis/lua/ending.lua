-- Put in front of the scripts that may end a stream, or are told of a repeated call, after shared_write.lua.
-- HDEL comes first here, too.
local function finish(s, status, message, life)
  redis.call('HDEL', KEYS[1], 'lease')
  redis.call('XADD', KEYS[2], s.generation .. LAST, 'e', status, 'n', s.size, 'm', message)
  s.status, s.error, s.rows, s.kept, s.written = status, message, s.rows + 1, 0, true
  life = life == '' and s.ttl or tonumber(life)
  keep(s, life, 'status', status, 'error', message, 'finished', now)
end
local function reap(s, life)
  if s.status == 'streaming' and s.lease <= now then finish(s, 'interrupted', '', life) end
end
-- What a repeated call writes that was carried out before: WAIT counts only what its own connection wrote.
local function again(s) redis.call('PEXPIREAT', KEYS[1], s.kept) end
