-- Takes the next turn at something that is done at a pace, and says when it comes.
-- KEYS  common; 14 turn
-- ARGV  prefix, ms between two turns, turns at once, most ms to wait
-- Returns  {'', ms until the turn} | {''}: it would be longer, none is taken
-- Replay   takes another turn.
-- $include(clock.lua)
local every, burst, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- When the turns that were taken would be over if none came at once.
local busy = math.max(NOW, tonumber(redis.call('GET', KEYS[14])) or 0)
local wait = math.max(0, busy - NOW - (burst - 1) * every)
if wait > most then return { '' } end
redis.call('SET', KEYS[14], string.format('%.0f', busy + every), 'PX', string.format('%.0f', busy + every - NOW))
return { '', wait }
