-- Moves a machine by a transition, and sets its provider's id, its region and
-- its failure where given. A transition that its state doesn't have leaves the state.
-- KEYS  common; 14 machines
-- ARGV  prefix, machine id, transition, provider id, region, reason, message, leader's term or 0
-- Returns  {'', machine JSON} | {'MACHINE_NOT_FOUND'} | {'LEASE_LOST'}
-- Replay   the machine as it is; a DESTROYED machine is forgotten, and destroying it again says so.
-- $include(machine.lua)
-- $include(lead.lua)
local id, by = ARGV[2], ARGV[3]
if not may_act(ARGV[8]) then return { 'LEASE_LOST' } end
local m = load_machine(KEYS[14], id)
if not m then
  if by == 'destroy' then return { '', cjson.encode({ id = id, state = 'DESTROYED' }) } end
  return { 'MACHINE_NOT_FOUND' }
end
local moved = move_machine(m, by)
if ARGV[4] ~= '' then m.provider_id = ARGV[4] end
if ARGV[5] ~= '' then m.region = ARGV[5] end
if moved then
  -- A failure says why the machine is in this state; the next one has its own.
  m.reason, m.message = nil, nil
  if ARGV[6] ~= '' then m.reason, m.message = ARGV[6], ARGV[7] end
end
if m.state == 'DESTROYED' then
  redis.call('HDEL', KEYS[14], id)
else
  save_machine(KEYS[14], m)
end
return { '', cjson.encode(m) }
