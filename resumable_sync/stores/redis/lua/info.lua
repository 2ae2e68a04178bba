-- info(meta, log, fence; finished ttl ms or '') -> {'missing'}, {'damaged'}, or {'found', field, value, …}.
-- The fields are meta's. A stream whose producer is dead is ended first.
local s, none = load()
if not s then return none end
reap(s, ARGV[1])
local found = redis.call('HGETALL', KEYS[1])
table.insert(found, 1, 'found')
return found
