-- Moves jobs whose tasks of the run are all done to COMPLETED with their outputs.
-- KEYS  common; of each request: job, outputs, outputs without objects
-- ARGV  prefix; requests (see request.lua) of: job id, run, outputs JSON, outputs JSON without objects
-- Returns  {answer, ...}: {'', 1 if it is COMPLETED in that run, else 0}
-- Replay   1
-- $include(job.lua)
-- $include(request.lua)
local requests = read_requests()
local ids = {}
for i, r in ipairs(requests) do ids[i] = r[1] end
load_jobs(ids)

local function complete(r)
  local job = load_job(r[1])
  if not job or tonumber(job.run) ~= tonumber(r[2]) then return { '', 0 } end
  if job.state == 'COMPLETED' then return { '', 1 } end
  if job.open > 0 or not move_job(job, 'complete') then return { '', 0 } end
  set(r.k[2], r[3])
  set(r.k[3], r[4])
  job.percent, job.playable = 100, STAMP
  end_job(job, 'COMPLETED')
  if tonumber(job.left) == 1 then clean_later(job) end
  return { '', 1 }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = complete(r) end
flush()
return answers
