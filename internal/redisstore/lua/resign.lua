-- Gives leadership up, so that another replica can sweep at once.
-- KEYS  common
-- ARGV  prefix, replica
-- Returns  {''}
-- Replay   the same.
-- $include(wake.lua)
if redis.call('HGET', SWEEP, 'leader') == ARGV[2] then
  redis.call('HDEL', SWEEP, 'leader', 'next') -- what was due and not done yet has to wake, too
  due(NOW)
  publish_wakes()
end
return { '' }
