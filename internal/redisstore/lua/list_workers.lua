-- Reads the workers that were seen lately, or one. Changes nothing.
-- KEYS  common
-- ARGV  prefix, worker id (or nothing: all)
-- Returns  {'', {id, last seen, {machine, version, slots, CPUs, encoders, first seen, session with draining and attached},
--          {member, attempt, ...}}, ...}
-- $include(roster.lua)
if ARGV[2] == '' then return roster({ '' }) end
return { '', roster_row(ARGV[2], redis.call('ZSCORE', WORKERS, ARGV[2]) or '0') }
