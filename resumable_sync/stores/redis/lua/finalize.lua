-- finalize(meta, log, fence; generation, offset, status, error, finished ttl ms or '')
--   -> the size, also if that ending stands already, or the state that refuses it.
local s, none = load()
if not s then return none end
if s.generation ~= ARGV[1] then return report(s) end
if s.status == ARGV[3] then return s.size end
if s.status ~= 'streaming' or s.size < tonumber(ARGV[2]) then return report(s) end
finish(s, ARGV[3], ARGV[4], ARGV[5])
return s.size
