-- Writes jobs in PENDING with their first task ready.
-- KEYS  common. Derived: the jobs and their specs, the uploads of their sources
-- ARGV  prefix; requests (see request.lua) of: job id, project, priority, waiting limit, spec, front of the record
--       (see record.lua) up to when it was created, upload id (or nothing), and its idempotency key with fingerprint and
--       ttl ms (nothing, nothing, 0: none)
-- Returns  {answer, ...}: {'', when it was created} | {'', '', id of the job that was there}
--          | {'IDEMPOTENCY_KEY_REUSED' | 'OBJECT_NOT_FOUND' | 'QUEUE_FULL'}
-- Replay   the same id, or the same idempotency key, gives the first job.
--          A key whose job was deleted makes a new one.
-- $include(record.lua)
-- $include(member.lua)
-- $include(request.lua)
-- $include(idempotency.lua)
-- $include(admit.lua)
local requests = read_requests()
local CREATED = ' ' .. STAMP
-- When it was created, queued and planned, and its first two events.
local BACK = pack('>I6I6I6', NOW, NOW, 0) .. pack(EVENT, EVENT_TYPES.CREATED, NOW) .. pack(EVENT, EVENT_TYPES.QUEUED, NOW)
local keys, uploads = {}, {}
for _, r in ipairs(requests) do
  r.key = job_key(r[1])
  keys[#keys + 1] = r.key
  if r[10] > 0 then keys[#keys + 1] = r[8] end
end
read_all(keys)

local function create(r)
  local id, project, upload, key, ttl = r[1], r[2], r[7], r[8], r[10]
  if ttl > 0 then
    local first, other = known_id(read(key), r[9])
    if other then return { 'IDEMPOTENCY_KEY_REUSED' } end
    if first and read(job_key(first)) then return { '', '', first } end
  end
  if READ[r.key] then return { '', '', id } end
  if upload ~= '' then
    local u = upload_key(upload)
    uploads[u] = uploads[u] or redis.call('HGET', u, 's') or ''
    if uploads[u] ~= 'COMPLETED' then return { 'OBJECT_NOT_FOUND' } end
    if not admit(project, r[4]) then return { 'QUEUE_FULL' } end
    append(uploads, id, upload)
  elseif not admit(project, r[4]) then
    return { 'QUEUE_FULL' }
  end

  local raw = r[6] .. BACK
  READ[r.key] = raw
  set(r.key, raw)
  set(spec_key(id), r[5])
  if ttl > 0 then keep_key(key, r[9], id, ttl) end
  zadd(index_of(project, 'PENDING'), '0', id)
  queue_add(project, r[3], NOW, id .. '-00000')
  return CREATED
end

local answers = {}
for i, r in ipairs(requests) do answers[i] = create(r) end
keep_keys()
for i = 1, #uploads, 2 do
  redis.call('HSET', more_key(uploads[i]), 'up', uploads[i + 1])
  redis.call('HINCRBY', upload_key(uploads[i + 1]), 'n', 1)
end
write_out()
return answers
