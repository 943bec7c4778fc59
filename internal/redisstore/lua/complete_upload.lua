-- Moves an open upload to COMPLETED and its job to PENDING with its first task ready.
-- KEYS  common; 9 upload. Derived: the upload's job and its index.
-- ARGV  prefix, upload id, size, etag, first task JSON
-- Returns  {'', upload id, upload row} | {'UPLOAD_NOT_FOUND' | 'UPLOAD_EXPIRED' | 'UPLOAD_ABORTED' | 'UPLOAD_SIZE_MISMATCH'}
-- Replay   a COMPLETED upload is returned as it is.
-- $include(upload.lua)
-- $include(task.lua)
local id = ARGV[2]
local state, job_id = unpack(redis.call('HMGET', KEYS[9], 's', 'j'))
if not state then return { 'UPLOAD_NOT_FOUND' } end
if state == 'COMPLETED' then return { '', id, upload_row(id) } end
if not move_upload(id, state, 'complete') then return { ENDED_UPLOAD[state] } end

local job = load_job(job_id)
move_job(job, 'uploaded')
put(job, 'sz', ARGV[3])
put(job, 'et', ARGV[4])
start_run(job, ARGV[5])
flush()
return { '', id, upload_row(id) }
