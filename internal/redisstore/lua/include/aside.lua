-- Jobs with a record that can't be read. Whoever finds one notes it in BROKEN, as "<job> <project>" (the project if known),
-- and goes on as if it weren't there; the sweeper sets it aside.
-- $include(task.lua)

-- set_aside ends such a job: FAILED, in the place of the record, which is kept in x:<job> for who looks into it. What
-- it held is free. Ready tasks stay in the queue, for claims to pass by. A record that could be read after all stays,
-- unless the caller knows better.
local function set_aside(id, project, certain)
  local key = job_key(id)
  local raw = read(key)
  if not raw then return end
  local count = 0
  local whole = pcall(function()
    local job = load_job(id)
    count = job.count
    for index = 0, count - 1 do load_task(job, index) end
  end)
  if whole and not certain then return end
  JOBS[id] = nil
  for i = #JOB_ORDER, 1, -1 do
    if JOB_ORDER[i].id == id then table.remove(JOB_ORDER, i) end
  end
  if project == '' then
    local named, name = pcall(unpack_struct, '>I3c0', read(spec_key(id)) or '')
    project = named and name or ''
  end
  for _, state in ipairs(JOB_STATES) do
    if state ~= 'FAILED' then zrem(index_of(project, state), id) end
  end
  drop_leases(project, function(m) return parse_member(m) == id end)
  for index = 0, count - 1 do -- a retry numbers its tasks anew
    local m = member(id, index)
    del(task_key(m))
    del(result_key(m))
  end
  local job = new_job(id, project, 0, 'FAILED', 0)
  put(job, 'broken', raw)
  end_job(job, 'FAILED', 'INTERNAL', 'A record of the job cannot be read. It was set aside.')
end
