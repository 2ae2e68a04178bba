-- state(meta, log, fence; generation or '', offset, finished ttl ms or '')
--   -> {'missing'}, {'damaged'}, or {'found', generation, status, size, entries, error, ms until the lease or the
--      life runs out}.
-- A stream whose producer is dead is ended, unless there is something left to return after the offset.
local s, none = load()
if not s then return none end
if not ((ARGV[1] == '' or ARGV[1] == s.generation) and tonumber(ARGV[2]) < s.size) then reap(s, ARGV[3]) end
local due = s.expires - now
if s.status == 'streaming' then due = math.min(due, s.lease - now) end
return {'found', s.generation, s.status, text(s.size), text(s.entries), s.error, text(math.max(due, 0))}
