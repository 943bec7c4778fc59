-- Moves an open upload to COMPLETED and its job to PENDING with its first task ready.
-- KEYS  common; 14 upload. Derived: the upload's job, its index and its project's queue.
-- ARGV  prefix, upload id, size and etag, first task JSON, its weight
-- Returns  {'', upload id, upload row} | {'UPLOAD_NOT_FOUND' | 'UPLOAD_EXPIRED' | 'UPLOAD_ABORTED' | 'UPLOAD_SIZE_MISMATCH'}
-- Replay   a COMPLETED upload is returned as it is.
-- $include(upload.lua)
-- $include(task.lua)
local id = ARGV[2]
local state, job_id = unpack(redis.call('HMGET', KEYS[14], 's', 'j'))
if not state then return { 'UPLOAD_NOT_FOUND' } end
if state == 'COMPLETED' then return { '', id, upload_row(id) } end
if not next_state('upload', state, 'complete') then return { ENDED_UPLOAD[state] } end

local job = find_task(member(job_id, 0))
if not job or not move_job(job, 'uploaded') then -- it can't be read, or was set aside for that
  move_upload(id, state, 'abort')
  write_out()
  return { ENDED_UPLOAD.ABORTED }
end
move_upload(id, state, 'complete')
put(job, 'sr', ARGV[3])
start_run(job, ARGV[4], tonumber(ARGV[5]))
flush()
return { '', id, upload_row(id) }
