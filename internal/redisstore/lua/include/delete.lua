-- Deleting jobs that ended.
-- $include(task.lua)
-- $include(duty.lua)

local UPLOAD_URL_LIFE = 60 * 60 * 1000 -- pipeline.UploadURLLife

-- delete_job removes a terminal job with its tasks, events and results, and
-- leaves the duty to purge its objects. Its upload goes with the last job that
-- has it as its source; until then the source isn't among what is purged.
local function delete_job(job, purges)
  local id = job.id
  local purge = redis.call('GET', spec_key(id))
  -- One that was set aside doesn't say that it has an upload. Of one that doesn't say which, the source stays.
  local uploaded = redis.call('HGET', more_key(id), 'up')
  local stays = not purge or job.uploaded ~= 0 and not uploaded
  if uploaded then
    local upload = upload_key(uploaded)
    stays = redis.call('HINCRBY', upload, 'n', -1) > 0
    if not stays then
      del(upload)
      zrem(UPLOADS, uploaded)
    end
  end
  if stays or not purge then purge = pack('>I3c0I3I3I3I3i8I3', #job.project, job.project, 0, 0, 0, 0, 0, 0) end
  redis.call('HSET', purges, id, purge)
  -- A URL to write may outlive the job: what comes late is purged when none works any more, and what began with it is over.
  local last = job.lease_ms > 0 and job.lease_ms + CLEAN_AFTER or 0
  if uploaded or job.uploaded ~= 0 then last = math.max(last, UPLOAD_URL_LIFE + CLEAN_AFTER) end
  if last > 0 and job.finished + last > NOW then
    redis.call('HSET', purges, purge_again_field(id), string.format('%.0f', job.finished + last))
  end
  drop_duties(job)
  zadd(DUTIES, STAMP, 'PURGE|' .. id)
  due(NOW)
  zrem(index_key(job.project, job.state), id)
  zrem(ENDED, id)
  for _, key in ipairs({
    job.key, spec_key(id), more_key(id), events_key(id), probe_key(id), plan_key(id), outputs_key(id), summary_key(id),
  }) do del(key) end
  for index = 0, job.count - 1 do
    local m = member(id, index)
    del(task_key(m))
    del(result_key(m))
  end
  -- Whoever watches it reads again, and finds it gone.
  note(id, job.sequence)
end
