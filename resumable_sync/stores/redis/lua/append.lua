-- append(meta, log, fence; generation, token, offset, chunks, max bytes, max entries, grace ms, handover ms, life ms,
--        how many notes; if there are any: max notes, max bytes of notes, the notes; then the rows)
--   -> 1, or the state that refuses it, or {'notes', how many, bytes} that there would be.
-- At `offset` or not at all; the same bytes at the same place are stored once.
local s, none = load(ARGV[1])
if not s then return none end
local function refuse()
  local found, gone = load()
  return gone or report(found)
end
local offset, length, rows = tonumber(ARGV[3]), 0, ARGV[10] == '0' and 11 or 13 + 2 * ARGV[10]
for i = rows, #ARGV, 2 do length = length + #ARGV[i] end
if s.generation ~= ARGV[1] or s.fence ~= ARGV[2] or s.status ~= 'streaming' then return refuse() end
if s.size == offset then
  if length > 0 and (offset + length > tonumber(ARGV[5]) or s.entries + ARGV[4] > tonumber(ARGV[6])) then
    return refuse()
  end
  if rows > 11 then -- this is append_noted, which has the functions of notes.lua
    local notes, bytes = noted(13, ARGV[10])
    if notes > tonumber(ARGV[11]) or bytes > tonumber(ARGV[12]) then return {'notes', notes, bytes} end
    add(s, rows, ARGV[4])
    set(13, ARGV[10], '::', notes, bytes)
    redis.call('HSET', KEYS[1], 'begin', -1)
  else
    add(s, rows, ARGV[4])
  end
elseif s.size == offset + length then
  local stored, sent = {}, {}
  local range = redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-' .. ARGV[3], ARGV[1] .. '-' .. text(s.size))
  for i, row in ipairs(range) do stored[i] = row[2][2] end
  for i = rows, #ARGV, 2 do sent[#sent + 1] = ARGV[i] end
  if table.concat(stored) ~= table.concat(sent) then return refuse() end
else
  return refuse()
end
alive(s, ARGV[7], ARGV[8], ARGV[9])
return 1
