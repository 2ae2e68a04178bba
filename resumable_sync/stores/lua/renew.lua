-- renew(meta, log, fence; generation, offset, grace ms, ttl ms) -> 1, or the state that refuses it.
local s, none = load()
if not s then return none end
if s.generation ~= ARGV[1] or s.status ~= 'streaming' or s.size < tonumber(ARGV[2]) then return report(s) end
redis.call('HSET', KEYS[1], 'lease', text(now + tonumber(ARGV[3])))
keep(s, tonumber(ARGV[4]))
return 1
