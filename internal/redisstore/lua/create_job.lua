-- Writes jobs in PENDING with their first task ready.
-- KEYS  common; of each request: job, spec, then its idempotency key and the upload of its source, where given
-- ARGV  prefix; requests (see request.lua) of: job id, project, priority, spec JSON, first task JSON, waiting limit,
--       upload id (or nothing), fingerprint and ttl ms of its idempotency key (left out if there is none)
-- Returns  {answer, ...}: {'', job id, when it was created; left out if the job was there}
--          | {'IDEMPOTENCY_KEY_REUSED' | 'OBJECT_NOT_FOUND' | 'QUEUE_FULL'}
-- Replay   the same id, or the same idempotency key, gives the first job.
--          A key whose job was deleted makes a new one.
-- $include(task.lua)
-- $include(request.lua)
-- $include(idempotency.lua)
-- $include(admit.lua)
local requests = read_requests()
local keys, ids = {}, {}
for i, r in ipairs(requests) do
  ids[i] = r[1]
  if r[8] then keys[#keys + 1] = r.k[3] end
end
load_jobs(ids)
local known = {}
for i, raw in ipairs(read(keys)) do known[keys[i]] = raw end

local uploads, remembered = {}, {}
-- has_upload reports whether the object of an upload is there.
local function has_upload(key)
  if uploads[key] == nil then uploads[key] = redis.call('HGET', key, 's') or '' end
  return uploads[key] == 'COMPLETED'
end

local function create(r)
  local id, project, upload = r[1], r[2], r[7]
  if r[8] then
    local first, other = known_id(known[r.k[3]], r[8])
    if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
    if first and load_job(first) then return { '', first } end
  end
  if load_job(id) then return { '', id } end
  if upload ~= '' and not has_upload(r.k[#r.k]) then return { 'OBJECT_NOT_FOUND' } end
  if not admit(project, tonumber(r[6])) then return { 'QUEUE_FULL' } end

  local job = new_job(id, 'PENDING', project, r[3], upload)
  add_event(job, 'CREATED')
  start_run(job, r[5])
  set(r.k[2], r[4])
  if upload ~= '' then remembered[#remembered + 1] = { 'HINCRBY', r.k[#r.k], 'n', 1 } end
  if r[8] then
    known[r.k[3]] = key_value(r[8], id, tonumber(r[9]))
    remembered[#remembered + 1] = { 'SET', r.k[3], known[r.k[3]], 'PX', r[9] }
  end
  return { '', id, STAMP }
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = create(r) end
for _, command in ipairs(remembered) do redis.call(unpack(command)) end
flush()
return answers
