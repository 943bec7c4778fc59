-- Moves jobs whose tasks of the run are all done to COMPLETED with their outputs.
-- KEYS  common. Derived: the jobs, their outputs and their indexes.
-- ARGV  prefix; requests (see request.lua) of: job id, run, outputs JSON, and the same without objects (nothing if these are few)
-- Returns  {answer, ...}: 1 if it is COMPLETED in that run, else 0
-- Replay   1
-- $include(complete.lua)
-- $include(request.lua)
local requests = read_requests()
local YES, NO = ' 1', ' 0'
local keys = {}
for i, r in ipairs(requests) do keys[i] = job_key(r[1]) end
read_all(keys)

local function complete_done(r, key)
  local raw, id = READ[key], r[1]
  if not raw then return NO end
  local project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight, done,
    percent, behind = unpack_struct(HEAD, raw)
  if run ~= r[2] then return NO end
  if state == COMPLETED then return YES end
  if open > 0 or state ~= RUNNING then return NO end
  local events
  playable, sequence, events = completion(playable, sequence)
  keep(key, pack(HEAD .. BACK .. BACK, #project, project, #progress, progress, COMPLETED, run, sequence, base, open, lease_ms, left, stream,
    uploaded, started, playable, NOW, weight, done, percent, sub(raw, behind), events))
  note(id, sequence)
  zrem(DUTIES, 'PUBLISH|' .. id)
  complete(id, project, stream, left, lease_ms, r[3], r[4])
  return YES
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = complete_done(r, keys[i]) end
write_out()
return answers
