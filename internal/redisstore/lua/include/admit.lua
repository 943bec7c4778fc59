-- How many jobs of a project wait, and whether one more may.
-- $include(keys.lua)
local WAITING, ADMITTED = {}, {} -- by project: before this script, and by it

-- admit counts one more waiting job of a project; false if that is above a limit (0: none).
local function admit(project, limit)
  local n = (ADMITTED[project] or 0) + 1
  if limit > 0 then
    WAITING[project] = WAITING[project] or redis.call('ZCARD', index_key(project, 'UPLOADING'))
      + redis.call('ZCARD', index_key(project, 'PENDING'))
    if WAITING[project] + n > limit then return false end
  end
  ADMITTED[project] = n
  return true
end
