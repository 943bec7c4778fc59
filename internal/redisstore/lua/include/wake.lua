-- Wake-ups are collected and published once, at the end of a script.
-- $include(clock.lua)
local WAKES = {}
local EARLIEST -- the earliest deadline that this script set

local function due(at)
  if not EARLIEST or at < EARLIEST then EARLIEST = at end
end

local function publish_wakes()
  if EARLIEST then
    local next_sweep = tonumber(redis.call('HGET', SWEEP, 'next'))
    if not next_sweep or EARLIEST < next_sweep then
      redis.call('HSET', SWEEP, 'next', EARLIEST)
      WAKES.DUE = true
    end
  end
  for wake in pairs(WAKES) do redis.call('PUBLISH', WAKE_CHANNEL, wake) end
  WAKES, EARLIEST = {}, nil
end
