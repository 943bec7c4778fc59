-- Moves jobs whose tasks of the run are all done to COMPLETED with their outputs.
-- KEYS  common; of each request: outputs, outputs without objects. Derived: the job and its indexes.
-- ARGV  prefix; requests (see request.lua) of: job id, run, outputs JSON, outputs JSON without objects
-- Returns  {answer, ...}: {'', 1 if it is COMPLETED in that run, else 0}
-- Replay   1
-- $include(job.lua)
-- $include(request.lua)
local requests = read_requests(2)
local keys = {}
for i, r in ipairs(requests) do keys[i] = job_key(r[1]) end
read_all(keys)

local function complete(r)
  local job = load_job(r[1])
  if not job or job.run ~= r[2] then return { '', 0 } end
  if job.state == 'COMPLETED' then return { '', 1 } end
  if job.open > 0 or not move_job(job, 'complete') then return { '', 0 } end
  set(KEYS[r.k], r[3])
  set(KEYS[r.k + 1], r[4])
  make_playable(job)
  end_job(job, 'COMPLETED')
  if job.left ~= 0 then clean_later(job) end
  return { '', 1 }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = complete(r) end
flush()
return answers
