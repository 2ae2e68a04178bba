-- commit(meta, log, fence; generation or '', length, chunks, max bytes, max entries, ending or '', error, token or '' if
--        it is not fenced, max notes, max bytes of notes, how many notes are expected, how many are to be set, the notes
--        that are expected, those that are to be set, then the rows)
--   -> {'stored', generation, size}, or what refuses it: {'missing'}, {'damaged'}, or {'refused', generation, status,
--      size, entries, shared: 1 or 0, how many notes, bytes of notes there would be, then the expected ones as they are:
--      '' or '=' and the value}.
local s, none = load()
if not s then return none end
local f = redis.call('HMGET', KEYS[1], 'shared', 'sliding')
local length, expect, notes = tonumber(ARGV[2]), tonumber(ARGV[11]), tonumber(ARGV[12])
local first = 13 + 2 * expect
local many, bytes = 0, 0
local function refuse()
  local found = {'refused', s.generation, s.status, text(s.size), text(s.entries), f[1] and '1' or '0', text(many),
    text(bytes)}
  for i = 13, first - 1, 2 do
    local value = note(ARGV[i])
    found[#found + 1] = value and '=' .. value or ''
  end
  return found
end
if ARGV[1] ~= '' and ARGV[1] ~= s.generation then return refuse() end
if ARGV[8] ~= '' then
  for i = first, first + 2 * notes - 1, 2 do
    local size, token = string.match(redis.call('HGET', KEYS[1], 'n:' .. ARGV[i]) or '', '^(%d*):([^:]*):')
    if token == ARGV[8] then
      again(s)
      return {'stored', s.generation, size}
    end
  end
end
local writes = length > 0 or ARGV[6] ~= ''
if writes and not f[1] then return refuse() end
for i = 13, first - 1, 2 do
  local value = note(ARGV[i])
  if (value and '=' .. value or '') ~= ARGV[i + 1] then
    if ARGV[8] ~= '' then again(s) end -- whoever repeats a fenced commit takes what it finds here as its own
    return refuse()
  end
end
if writes and s.status ~= 'streaming' then return refuse() end
if length > 0 and (s.size + length > tonumber(ARGV[4]) or s.entries + ARGV[3] > tonumber(ARGV[5])) then return refuse() end
if notes > 0 then
  many, bytes = noted(first, notes)
  if many > tonumber(ARGV[9]) or bytes > tonumber(ARGV[10]) then return refuse() end
end
add(s, first + 2 * notes, ARGV[3])
if notes > 0 then
  local mark = ARGV[8] == '' and '::' or text(s.size) .. ':' .. ARGV[8] .. ':'
  set(first, notes, mark, many, bytes)
end
if f[1] then
  local life = f[2] == '0' and s.expires - now or s.ttl
  if ARGV[6] == '' then keep(s, life) else finish(s, ARGV[6], ARGV[7], life) end
elseif notes == 0 then
  again(s)
end
return {'stored', s.generation, text(s.size)}
