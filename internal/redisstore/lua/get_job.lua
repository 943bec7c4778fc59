-- Reads a job with its tasks, and for what it waits. Changes nothing.
-- KEYS  common; 9 job, 10 spec, 11 results
-- ARGV  prefix, job id
-- Returns  {'', job row, spec JSON, {task JSON, attempts JSON, ...}, {field, JSON, ...} of the results,
--          wait reason, ready tasks before its own} | {'JOB_NOT_FOUND'}
-- $include(task.lua)
local WORKER_SEEN = 60000

local job = load_job(ARGV[2])
if not job then return { 'JOB_NOT_FOUND' } end

local tasks = {}
for from = 0, job.tasks_count - 1, 1000 do
  local fields = {}
  for index = from, math.min(from + 999, job.tasks_count - 1) do
    fields[#fields + 1] = 't' .. index
    fields[#fields + 1] = 'a' .. index
  end
  for _, v in ipairs(redis.call('HMGET', KEYS[9], unpack(fields))) do tasks[#tasks + 1] = v end
end

local reason, position = '', 0
if job.state == 'UPLOADING' then
  reason = 'UPLOAD'
elseif job.state == 'PENDING' or job.state == 'RUNNING' then
  local ready, leased, delayed
  for index = job.first, job.tasks_count - 1 do
    local state = cjson.decode(tasks[2 * index + 1]).s
    if state == 'LEASED' then leased = true end
    if state == 'DELAYED' then delayed = true end
    if state == 'READY' and not ready then ready = index end
  end
  if not leased and ready then
    local idle = redis.call('ZCOUNT', WORKERS, NOW - WORKER_SEEN, '+inf') == 0
    reason = idle and 'NO_WORKER' or 'QUEUE'
    position = redis.call('ZRANK', READY, member(job.id, ready)) or 0
  elseif not leased and delayed then
    reason = 'BACKOFF'
  end
end

return { '', job_row(job.id), redis.call('GET', KEYS[10]), tasks, redis.call('HGETALL', KEYS[11]), reason, position }
