-- read(meta, log, fence; generation or '', offset, max bytes, finished ttl ms or '')
--   -> {'missing'}, {'damaged'}, or {'found', generation, status, size, entries, error, ms until the lease or the
--      life runs out, rows behind the offset until max bytes: {id, {field, value, …}}, …}.
-- A stream whose producer is dead is ended, once there is nothing left to return.
local s, none = load()
if not s then return none end
local offset, wanted, rows = tonumber(ARGV[2]), tonumber(ARGV[3]), {}
if (ARGV[1] == '' or ARGV[1] == s.generation) and offset < s.size then
  local start, count, bytes = '(' .. s.generation .. '-' .. ARGV[2], 4, 0
  repeat -- few at first: how large rows are is not known before
    local found = redis.call('XRANGE', KEYS[2], start, s.generation .. '-' .. text(s.size), 'COUNT', count)
    for _, row in ipairs(found) do
      rows[#rows + 1] = row
      local reached = tonumber(string.match(row[1], '%d+$'))
      bytes = reached - offset
      if bytes >= wanted then break end
    end
    if #found > 0 then start = '(' .. found[#found][1] end
    local full = #found == count
    count = math.min(count * 4, 256)
  until not full or bytes >= wanted or #rows >= 2000
else
  reap(s, ARGV[4])
end
local due = tonumber(redis.call('HGET', KEYS[1], 'expires')) - now
if s.status == 'streaming' then due = math.min(due, s.lease - now) end
return {'found', s.generation, s.status, text(s.size), text(s.entries), s.error, text(math.max(due, 0)), rows}
