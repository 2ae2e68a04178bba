-- info(meta, log, fence; finished ttl ms or '', with the notes: 1 or 0)
--   -> {'missing'}, {'damaged'}, or {'found', field, value, …}; the notes are fields n:<name>, see notes.lua.
-- A stream whose producer is dead is ended first.
local s, none = load()
if not s then return none end
reap(s, ARGV[1])
local found = describe(s)
if ARGV[2] == '1' and redis.call('HGET', KEYS[1], 'notes') then
  for i, part in ipairs(redis.call('HGETALL', KEYS[1])) do found[#found + 1] = part end
end
return found
