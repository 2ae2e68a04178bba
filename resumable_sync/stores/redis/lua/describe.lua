-- Put in front of the scripts that tell all about a stream, after shared.lua.
-- {'found', field, value, …}: the fields are meta's, without the notes, and `alive`, if a producer holds the lease.
local function describe(s)
  local names = {'generation', 'status', 'size', 'entries', 'created', 'updated', 'finished', 'error', 'metadata', 'ttl',
    'shared', 'sliding', 'term', 'handover', 'lease', 'until'}
  local found, values = {'found'}, redis.call('HMGET', KEYS[1], unpack(names))
  for i, name in ipairs(names) do
    if values[i] then
      found[#found + 1] = name
      found[#found + 1] = values[i]
    end
  end
  if s.status == 'streaming' and not values[11] and (whole(values[16] or values[15]) or 0) > now then
    found[#found + 1] = 'alive'
    found[#found + 1] = '1'
  end
  return found
end
