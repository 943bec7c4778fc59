-- Machines: JSON by id in one hash; there are few, and their limit is over all.
-- $include(clock.lua)
-- $include(transitions.lua)

local function load_machine(key, id)
  local raw = redis.call('HGET', key, id)
  return raw and cjson.decode(raw) or nil
end

-- move_machine changes the record in memory; false if the table forbids it.
local function move_machine(m, by)
  local to = next_state('machine', m.state, by)
  if not to then return false end
  m.state, m.changed = to, NOW
  return true
end

local function save_machine(key, m)
  redis.call('HSET', key, m.id, cjson.encode(m))
end
