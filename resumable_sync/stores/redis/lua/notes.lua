-- Put in front of the scripts that know notes, after shared_write.lua. Notes are fields of meta:
--   n:<name>  '<size>:<token>:<value>', both left out but where a fenced commit stored it: then the stream's size after
--             that commit, and the commit's token, by which it is recognised when it is repeated
--   notes     '<how many> <bytes of their names and values>': no script counts them all
-- In ARGV they are pairs, of `count` from `first` on: a name, and '' for none or '=' and the value.
local function note(name) return string.match(redis.call('HGET', KEYS[1], 'n:' .. name) or '', '^%d*:[^:]*:(.*)$') end
-- How many notes, of how many bytes, there will be once these are set.
local function noted(first, count)
  local notes, bytes = string.match(redis.call('HGET', KEYS[1], 'notes') or '0 0', '^(%d+) (%d+)$')
  for i = first, first + 2 * count - 1, 2 do
    local present, wanted = note(ARGV[i]), ARGV[i + 1]
    if present then notes, bytes = notes - 1, bytes - #ARGV[i] - #present end
    if wanted ~= '' then notes, bytes = notes + 1, bytes + #ARGV[i] + #wanted - 1 end
  end
  return tonumber(notes), tonumber(bytes)
end
local function set(first, count, mark, notes, bytes)
  for i = first, first + 2 * count - 1, 2 do
    if ARGV[i + 1] == '' then
      redis.call('HDEL', KEYS[1], 'n:' .. ARGV[i])
    else
      redis.call('HSET', KEYS[1], 'n:' .. ARGV[i], mark .. string.sub(ARGV[i + 1], 2))
    end
  end
  redis.call('HSET', KEYS[1], 'notes', text(notes) .. ' ' .. text(bytes))
end
