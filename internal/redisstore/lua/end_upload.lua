-- Moves an open upload to ABORTED, EXPIRED or FAILED, and its job to CANCELED or FAILED.
-- KEYS  common; 14 upload. Derived: the upload's job and its index.
-- ARGV  prefix, upload id, transition (abort, expire, fail), reason, message
-- Returns  {'', upload id, upload row} | {'UPLOAD_NOT_FOUND' | 'UPLOAD_COMPLETED' | 'UPLOAD_EXPIRED' |
--          'UPLOAD_ABORTED' | 'UPLOAD_SIZE_MISMATCH'}
-- Replay   an upload that ended the same way is returned as it is.
-- $include(upload.lua)
local id, by = ARGV[2], ARGV[3]
local state, job_id = unpack(redis.call('HMGET', KEYS[14], 's', 'j'))
if not state then return { 'UPLOAD_NOT_FOUND' } end
if not move_upload(id, state, by) then
  if state == next_state('upload', 'OPEN', by) then return { '', id, upload_row(id) } end
  return { ENDED_UPLOAD[state] }
end

local job = load_job(job_id)
if by == 'abort' then
  move_job(job, 'cancel')
  end_job(job, 'CANCELED', ARGV[4], ARGV[5])
else
  move_job(job, 'upload_failed')
  end_job(job, 'FAILED', ARGV[4], ARGV[5])
end
clean_later(job.id, job.lease_ms)
flush()
return { '', id, upload_row(id) }
