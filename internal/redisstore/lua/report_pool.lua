-- Keeps what the leader tells of the pool.
-- KEYS  common; 14 pool
-- ARGV  prefix, report JSON, leader's term or 0
-- Returns  {''} | {'LEASE_LOST'}
-- Replay   the same.
-- $include(lead.lua)
if not may_act(ARGV[3]) then return { 'LEASE_LOST' } end
redis.call('HSET', KEYS[14], 'report', ARGV[2])
return { '' }
