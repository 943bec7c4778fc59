-- Reads the events of a job after a sequence. Changes nothing.
-- KEYS  common; 14 job
-- ARGV  prefix, sequence
-- Returns  {'', sequence of the first event returned, event, ...} | {'JOB_NOT_FOUND'}
local MAX_EVENTS = 1000
local newest = tonumber(string.match(redis.call('HGET', KEYS[14], 'h') or '', '^%S+ %S+ (%S+)'))
if not newest then return { 'JOB_NOT_FOUND' } end

local first = math.max(tonumber(ARGV[2]), newest - MAX_EVENTS, 0) + 1
local out = { '', first }
if first <= newest then
  local fields = {}
  for sequence = first, newest do fields[#fields + 1] = 'e' .. sequence end
  for _, v in ipairs(redis.call('HMGET', KEYS[14], unpack(fields))) do out[#out + 1] = v end
end
return out
