-- Writes a machine in CREATING unless there are too many.
-- KEYS  common; 14 machines
-- ARGV  prefix, machine id, limit, provider, provider id, region
-- Returns  {'', 1 if the machine is there, else 0 (limit machines are neither FAILED nor DESTROYED)}
-- Replay   1
-- $include(machine.lua)
if redis.call('HEXISTS', KEYS[14], ARGV[2]) == 1 then return { '', 1 } end
local live = 0
for _, raw in ipairs(redis.call('HVALS', KEYS[14])) do
  local state = cjson.decode(raw).state
  if state ~= 'FAILED' and state ~= 'DESTROYED' then live = live + 1 end
end
if live >= tonumber(ARGV[3]) then return { '', 0 } end
save_machine(KEYS[14], {
  id = ARGV[2], state = 'CREATING', provider = ARGV[4], provider_id = ARGV[5], region = ARGV[6],
  created = NOW, changed = NOW,
})
return { '', 1 }
