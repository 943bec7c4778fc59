-- Leases are in LEASES by their deadlines, and in HELD, all scores 0, by the
-- workers that hold them: each as "<worker> <member> <attempt>", which names no other lease ever.
-- $include(write.lua)

-- fresh_within is what a renewal has to add, in ms, to be worth a write.
local function fresh_within(lease_ms) return math.min(1000, lease_ms / 16) end

local function lease_name(worker, m, n) return worker .. ' ' .. m .. ' ' .. digits(n) end

-- parse_lease returns the member and the attempt that a lease is of.
local function parse_lease(name)
  local m, n = string.match(name, '(%S+) (%d+)$')
  return m, tonumber(n)
end

-- held_by lists the leases that a worker holds.
local function held_by(worker)
  local list = {}
  local from = worker .. ' '
  for _, name in ipairs(redis.call('ZRANGEBYLEX', HELD, '[' .. from, '(' .. from .. '\255')) do
    -- Another worker's id may begin like this one's.
    if string.find(name, '^%S+ %d+$', #from + 1) then list[#list + 1] = name end
  end
  return list
end
