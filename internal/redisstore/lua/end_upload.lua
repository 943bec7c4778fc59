-- Moves an open upload to ABORTED, EXPIRED or FAILED, and its job to CANCELED or FAILED.
-- KEYS  common; 14 upload. Derived: the upload's job and its index.
-- ARGV  prefix, upload id, transition (abort, expire, fail), reason, message
-- Returns  {'', upload id, upload row} | {'UPLOAD_NOT_FOUND' | 'UPLOAD_COMPLETED' | 'UPLOAD_EXPIRED' |
--          'UPLOAD_ABORTED' | 'UPLOAD_SIZE_MISMATCH'}
-- Replay   an upload that ended the same way is returned as it is.
-- $include(upload.lua)
-- $include(task.lua)
local id, by = ARGV[2], ARGV[3]
local state, job_id = unpack(redis.call('HMGET', KEYS[14], 's', 'j'))
if not state then return { 'UPLOAD_NOT_FOUND' } end
if not move_upload(id, state, by) then
  if state == next_state('upload', 'OPEN', by) then return { '', id, upload_row(id) } end
  return { ENDED_UPLOAD[state] }
end

local job = find_task(member(job_id, 0))
local aborts = by == 'abort'
if job and move_job(job, aborts and 'cancel' or 'upload_failed') then -- else it can't be read, or was set aside for that
  end_job(job, aborts and 'CANCELED' or 'FAILED', ARGV[4], ARGV[5])
  clean_later(job.id, job.lease_ms)
end
flush()
return { '', id, upload_row(id) }
