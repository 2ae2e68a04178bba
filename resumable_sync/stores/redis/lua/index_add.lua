-- index_add(index zset: the ids of all streams, score 0; fresh zset: ids lately acquired, score the server's ms at
--           which an election ended, or must have ended; orphans zset: ids of streams with a handover, score the
--           server's ms from which on somebody is to look whether it waits to be taken over; id, max streams, ms that an
--           election may take, ms until somebody is to look, '' if the stream is to have no handover)
--   -> 1, or 0 if the index is full.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now - 60000))
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
redis.call('PEXPIRE', KEYS[2], 120000)
if ARGV[4] ~= '' then
  -- One that is there is not put off. But its score changes: a caller that has just looked at what was there before must not
  -- take it away; see index_update.
  local due = redis.call('ZSCORE', KEYS[3], ARGV[1])
  redis.call('ZADD', KEYS[3], string.format('%.3f', due and due + 0.001 or now + ARGV[4]), ARGV[1])
end
return 1
