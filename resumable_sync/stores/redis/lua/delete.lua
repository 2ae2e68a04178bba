-- delete(meta, log, fence; token, only if expired or damaged: 1 or 0) -> 1 if it was there.
-- A repeated call of the same token is answered as the first one was.
-- A blocked XREAD is told nothing of a deletion, so for a few seconds the log keeps one entry that says it.
local s, none = load()
local damaged = not s and none[1] == 'damaged'
local fence = get('GET', KEYS[3]) or ''
local generation = as_generation(get('HGET', KEYS[1], 'generation'))
  or (damaged and (as_generation(string.match(fence, '^%d+')) or '0'))
if (ARGV[2] == '1' and s) or not generation then
  if string.match(fence, ' (.+)$') ~= ARGV[1] then return 0 end
  redis.call('PEXPIREAT', KEYS[3], fenced(tonumber(string.match(fence, '^%d+')), now)) -- as `again`
  return 1
end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('XADD', KEYS[2], generation .. LAST, 'x', '1')
redis.call('PEXPIRE', KEYS[2], 10000)
redis.call('SET', KEYS[3], generation .. ' ' .. ARGV[1], 'PXAT', fenced(generation, now))
return (s or damaged) and 1 or 0
