-- create(meta, log, fence; token, ttl ms, sliding: 1 or 0, finished ttl ms or '', metadata, ending or '', chunks, how many
--        notes, bytes of notes, the notes, then the rows)
--   -> as info, or 0: the id is taken. `token` is the caller's own: a repeated call is answered as the first one was.
local s = load()
if s and s.fence ~= ARGV[1] then
  reap(s, ARGV[4])
  return 0
end
if s then
  again(s)
else
  -- Nobody's lease: for those who know no shared streams, one that ends in a far future.
  s = begin(ARGV[1], 2^52, ARGV[2], ARGV[5], 'shared', 1, 'sliding', ARGV[3], 'term', 0)
  add(s, 10 + 2 * ARGV[8], ARGV[7])
  if ARGV[8] ~= '0' then set(10, ARGV[8], '::', ARGV[8], ARGV[9]) end
  if ARGV[6] == '' then keep(s, s.ttl) else finish(s, ARGV[6], '', s.ttl) end
end
return describe(s)
