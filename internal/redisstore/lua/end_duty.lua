-- Ends a duty. That of an open upload stays until the upload ends, that of a
-- job to publish until the job is published. A duty that a later state change
-- left under the same name stays: it isn't the one that was handed out. That
-- of a stream is ended by stream_published.lua.
-- KEYS  common; 14 purges, 15 upload (of EXPIRE_UPLOAD). Derived: the job (of PUBLISH)
-- ARGV  prefix, kind, id
-- Returns  {''}
-- Replay   the same.
-- $include(job.lua)
-- $include(duty.lua)
local kind, id = ARGV[2], ARGV[3]
local duty = kind .. '|' .. id
if kind == 'EXPIRE_UPLOAD' then
  if redis.call('HGET', KEYS[15], 's') ~= 'OPEN' then redis.call('ZREM', UPLOADS, id) end
elseif kind == 'PUBLISH' then
  local job = load_job(id)
  if not job or job.state ~= 'RUNNING' or job.open > 0 then redis.call('ZREM', DUTIES, duty) end
elseif kind == 'PURGE' then
  local again = redis.call('HGET', KEYS[14], purge_again_field(id))
  if again and tonumber(again) > NOW then
    redis.call('ZADD', DUTIES, again, duty)
    due(tonumber(again))
    publish_wakes()
  else
    redis.call('ZREM', DUTIES, duty)
    redis.call('HDEL', KEYS[14], id, purge_again_field(id))
  end
elseif kind ~= 'STREAM' then
  local at = redis.call('ZSCORE', DUTIES, duty)
  if at and tonumber(at) <= NOW + VISIBILITY then redis.call('ZREM', DUTIES, duty) end
end
return { '' }
