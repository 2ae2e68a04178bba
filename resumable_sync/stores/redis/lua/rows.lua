-- Put in front of the scripts that store chunks, after shared_write.lua.
-- Put the rows in ARGV from `first` on, payload and lengths or '' of each, at the end of the log: `chunks` in all.
-- `told`: the size as `keep` writes it, since a number costs Redis as much to print as a field to look up.
local function add(s, first, chunks)
  for i = first, #ARGV, 2 do
    s.size = s.size + #ARGV[i]
    s.told = text(s.size)
    local id = s.generation .. '-' .. s.told
    if ARGV[i + 1] == '' then
      redis.call('XADD', KEYS[2], id, 'p', ARGV[i])
    else
      redis.call('XADD', KEYS[2], id, 'p', ARGV[i], 'l', ARGV[i + 1])
    end
    s.rows, s.written = s.rows + 1, true
  end
  s.entries = s.entries + chunks
end
