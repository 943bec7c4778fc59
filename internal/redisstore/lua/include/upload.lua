-- Uploads: one hash each.
-- $include(job.lua)

-- upload_row is what a reader needs: state, job, project, JSON, created, expires.
local function upload_row(id)
  return redis.call('HMGET', upload_key(id), 's', 'j', 'p', 'd', 'c', 'x')
end

-- move_upload moves an upload; false if the table forbids it. One that is complete has no deadline any more. Of any other
-- what was stored is to be removed: the duty comes in a while, in case whoever ended it doesn't get to that.
local function move_upload(id, state, by)
  local to = next_state('upload', state, by)
  if not to then return false end
  redis.call('HSET', upload_key(id), 's', to)
  if to == 'COMPLETED' then
    redis.call('ZREM', UPLOADS, id)
  else
    redis.call('ZADD', UPLOADS, NOW + VISIBILITY, id)
    due(NOW + VISIBILITY)
  end
  return true
end

-- ended_upload is the refusal for a state that is final.
local ENDED_UPLOAD = {
  COMPLETED = 'UPLOAD_COMPLETED', ABORTED = 'UPLOAD_ABORTED',
  EXPIRED = 'UPLOAD_EXPIRED', FAILED = 'UPLOAD_SIZE_MISMATCH',
}
