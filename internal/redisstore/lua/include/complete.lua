-- The end of jobs whose tasks are all done.
-- $include(attempt.lua)
-- $include(duty.lua)
local ENDS = pack(EVENT, EVENT_TYPES.COMPLETED, NOW)
local PLAYS = pack(EVENT, EVENT_TYPES.PLAYABLE, NOW)

-- completion returns when a job is playable, its sequence, and its newest events, once it is COMPLETED.
local function completion(playable, sequence)
  if playable > 0 then return playable, sequence + 1, ENDS end
  return NOW, sequence + 2, PLAYS .. ENDS
end

-- complete notes what else becomes of a job that is COMPLETED, with its outputs, and these without objects where they are many.
local function complete(id, project, stream, left, lease_ms, outputs, summary)
  set(outputs_key(id), outputs)
  if summary ~= '' then set(summary_key(id), summary) end
  zrem(index_of(project, 'RUNNING'), id)
  zadd(index_of(project, 'COMPLETED'), '0', id)
  zadd(ENDED, STAMP, id)
  if stream ~= 0 then
    zrem(DUTIES, 'STREAM|' .. id)
    del(stream_key(id))
  end
  if left ~= 0 then clean_later(id, lease_ms) end
end
