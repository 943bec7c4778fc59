-- Writes a machine in CREATING unless there are too many.
-- KEYS  common; 14 machines
-- ARGV  prefix, machine id, limit, provider, provider id, region, leader's term or 0
-- Returns  {'', 1 if the machine is there, else 0 (there are limit machines)} | {'LEASE_LOST'}
-- Replay   1
-- $include(machine.lua)
-- $include(lead.lua)
if not may_act(ARGV[7]) then return { 'LEASE_LOST' } end
if redis.call('HEXISTS', KEYS[14], ARGV[2]) == 1 then return { '', 1 } end
-- In whatever state: a failed machine may still be there.
if redis.call('HLEN', KEYS[14]) >= tonumber(ARGV[3]) then return { '', 0 } end
save_machine(KEYS[14], {
  id = ARGV[2], state = 'CREATING', provider = ARGV[4], provider_id = ARGV[5], region = ARGV[6],
  created = NOW, changed = NOW,
})
return { '', 1 }
