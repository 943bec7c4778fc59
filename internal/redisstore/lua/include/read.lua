-- Strings are read together where a script knows beforehand which it needs.
-- $include(keys.lua)
local READ = {} -- by key: its value, false if there is none

-- read_all reads the strings of keys by one command, however many there are.
local function read_all(keys)
  for from = 1, #keys, 2000 do
    local to = math.min(from + 1999, #keys)
    local values = redis.call('MGET', unpack(keys, from, to))
    for i = from, to do READ[keys[i]] = values[i - from + 1] end
  end
end

-- read returns a string; false if there is none.
local function read(key)
  local value = READ[key]
  if value == nil then
    value = redis.call('GET', key)
    READ[key] = value
  end
  return value
end
