-- Put in front of the scripts that look into what may be damaged, after shared_write.lua.
-- A number as these scripts write it; nil for what somebody else put there.
local function whole(value)
  local number = tonumber(value)
  return number and number >= 0 and number < 9007199254740992 and number % 1 == 0 and number or nil
end
-- A generation, as text; nil for what somebody else put there.
local function as_generation(value) return value and whole(value) and string.match(value, '^%d+$') end
