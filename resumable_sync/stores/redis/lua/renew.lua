-- renew(meta, log, fence; generation, token, offset, grace ms, handover ms, life ms) -> 1, or the state that refuses it.
local s, none = load()
if not s then return none end
if s.generation ~= ARGV[1] or s.fence ~= ARGV[2] or s.status ~= 'streaming' or s.size < tonumber(ARGV[3]) then
  return report(s)
end
alive(s, ARGV[4], ARGV[5], ARGV[6])
return 1
