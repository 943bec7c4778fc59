-- NOW is the time of this script in milliseconds: Redis's clock, and what
-- tests moved it by. STAMP is NOW as text.
-- $include(keys.lua)
local function read_clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + (tonumber(redis.call('GET', CLOCK)) or 0)
end
local NOW = read_clock()
local STAMP = string.format('%.0f', NOW)
