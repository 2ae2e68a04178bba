-- append(meta, log, fence; generation, offset, length, chunks, max bytes, max entries, grace ms, ttl ms,
--        then of each row: payload, lengths or '') -> 1, or the state that refuses it.
-- At `offset` or not at all; the same bytes at the same place are stored once.
local s, none = load()
if not s then return none end
local offset, length = tonumber(ARGV[2]), tonumber(ARGV[3])
if s.generation ~= ARGV[1] or s.status ~= 'streaming' then return report(s) end
if s.size == offset then
  if length > 0 and (offset + length > tonumber(ARGV[5]) or s.entries + ARGV[4] > tonumber(ARGV[6])) then
    return report(s)
  end
  for i = 9, #ARGV, 2 do
    s.size = s.size + #ARGV[i]
    local id = s.generation .. '-' .. text(s.size)
    if ARGV[i + 1] == '' then
      redis.call('XADD', KEYS[2], id, 'p', ARGV[i])
    else
      redis.call('XADD', KEYS[2], id, 'p', ARGV[i], 'l', ARGV[i + 1])
    end
    s.rows = s.rows + 1
  end
  s.entries = s.entries + ARGV[4]
elseif s.size == offset + length then
  local stored, sent = {}, {}
  local rows = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-' .. ARGV[2], ARGV[1] .. '-' .. text(s.size))
  for i, row in ipairs(rows) do stored[i] = row[2][2] end
  for i = 9, #ARGV, 2 do sent[#sent + 1] = ARGV[i] end
  if table.concat(stored) ~= table.concat(sent) then return report(s) end
else
  return report(s)
end
keep(s, tonumber(ARGV[8]), 'lease', now + ARGV[7])
return 1
