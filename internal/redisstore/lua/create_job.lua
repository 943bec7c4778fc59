-- Writes a job in PENDING with its first task ready.
-- KEYS  common; 9 job, 10 spec, 11 index of PENDING, 12 idempotency key (left out if there is none)
-- ARGV  prefix, job id, project, priority, spec JSON, first task JSON, fingerprint, key's ttl ms
-- Returns  {'', job id, job row | nothing if the job was there} | {'IDEMPOTENCY_KEY_REUSED'}
-- Replay   the same id, or the same idempotency key, gives the first job.
--          A key whose job was deleted makes a new one.
-- $include(task.lua)
-- $include(idempotency.lua)
local id, project = ARGV[2], ARGV[3]

if KEYS[12] then
  local first, other = known_id(KEYS[12], ARGV[7])
  if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
  if first and redis.call('EXISTS', job_key(first)) == 1 then return { '', first } end
end
if redis.call('EXISTS', KEYS[9]) == 1 then return { '', id } end

local job = remember({
  id = id, state = 'PENDING', project = project, priority = tonumber(ARGV[4]), run = 1, sequence = 0,
  tasks_count = 0, first = 0, open = 0, weight = 0, done = 0, percent = 0, lease_ms = 0, left_objects = false,
  upload = false, put = { 's', 'PENDING', 'p', project, 'r', 1, 'tc', NOW }, drop = {}, tasks = {}, old_sequence = 0,
})
if job.priority ~= 0 then put(job, 'pr', job.priority) end
redis.call('SET', KEYS[10], ARGV[5])
redis.call('ZADD', KEYS[11], 0, id)
add_event(job, 'CREATED')
start_run(job, ARGV[6])
if KEYS[12] then remember_id(KEYS[12], ARGV[7], id, ARGV[8]) end
flush()
return { '', id, job_row(id) }
