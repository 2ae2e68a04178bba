-- renew(meta, log, fence; generation, offset, grace ms, ttl ms) -> 1, or the state that refuses it.
local s, none = load()
if not s then return none end
if s.generation ~= ARGV[1] or s.status ~= 'streaming' or s.size < tonumber(ARGV[2]) then return report(s) end
keep(s, tonumber(ARGV[4]), 'lease', now + ARGV[3])
return 1
