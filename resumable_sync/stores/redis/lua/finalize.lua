-- finalize(meta, log, fence; generation, token, offset, status, error, finished ttl ms or '', how many notes, max notes,
--          max bytes of notes, the notes)
--   -> the size, also if that ending stands already, or the state that refuses it, or {'notes', how many, bytes}.
local s, none = load()
if not s then return none end
if s.generation ~= ARGV[1] or s.fence ~= ARGV[2] then return report(s) end
if s.status == ARGV[4] then again(s) return s.size end
if s.status ~= 'streaming' or s.size < tonumber(ARGV[3]) then return report(s) end
local notes, bytes
if ARGV[7] ~= '0' then
  notes, bytes = noted(10, ARGV[7])
  if notes > tonumber(ARGV[8]) or bytes > tonumber(ARGV[9]) then return {'notes', notes, bytes} end
end
finish(s, ARGV[4], ARGV[5], ARGV[6])
if notes then set(10, ARGV[7], '::', notes, bytes) end
return s.size
