-- Moves jobs whose tasks of the run are all done to COMPLETED with their outputs.
-- KEYS  common; of each request: outputs, outputs without objects. Derived: the job and its indexes.
-- ARGV  prefix; requests (see request.lua) of: job id, run, outputs JSON, outputs JSON without objects
-- Returns  {answer, ...}: 1 if it is COMPLETED in that run, else 0
-- Replay   1
-- $include(attempt.lua)
-- $include(duty.lua)
-- $include(request.lua)
local requests = read_requests()
local YES, NO = ' 1', ' 0'
local ENDS = pack(EVENT, EVENT_TYPES.COMPLETED, NOW)
local PLAYS = pack(EVENT, EVENT_TYPES.PLAYABLE, NOW)
local keys = {}
for i, r in ipairs(requests) do keys[i] = job_key(r[1]) end
read_all(keys)

local function complete(r, key, outputs, summary)
  local raw, id = READ[key], r[1]
  if not raw then return NO end
  local project, progress, state, run, sequence, base, open, lease_ms, left, stream, uploaded, started, playable, finished, weight, done,
    percent, behind = unpack_struct(HEAD, raw)
  if run ~= r[2] then return NO end
  if state == COMPLETED then return YES end
  if open > 0 or state ~= RUNNING then return NO end
  local events = ENDS
  sequence = sequence + 1
  if playable == 0 then playable, sequence, events = NOW, sequence + 1, PLAYS .. ENDS end
  keep(key, pack(HEAD .. BACK .. BACK, #project, project, #progress, progress, COMPLETED, run, sequence, base, open, lease_ms, left, stream,
    uploaded, started, playable, NOW, weight, done, percent, sub(raw, behind), events))
  note(id, sequence)
  set(outputs, r[3])
  set(summary, r[4])
  zrem(index_of(project, 'RUNNING'), id)
  zadd(index_of(project, 'COMPLETED'), '0', id)
  zadd(ENDED, STAMP, id)
  zrem(DUTIES, 'PUBLISH|' .. id)
  if stream ~= 0 then
    zrem(DUTIES, 'STREAM|' .. id)
    del(stream_key(id))
  end
  if left ~= 0 then clean_later(id, lease_ms) end
  return YES
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = complete(r, keys[i], KEYS[12 + 2 * i], KEYS[13 + 2 * i]) end
write_out()
return answers
