-- Ends a duty. That of an open upload stays until the upload ends.
-- KEYS  common; 9 purges, 10 upload (of EXPIRE_UPLOAD)
-- ARGV  prefix, kind, id
-- Returns  {''}
-- Replay   the same.
-- $include(keys.lua)
local kind, id = ARGV[2], ARGV[3]
if kind == 'EXPIRE_UPLOAD' then
  if redis.call('HGET', KEYS[10], 's') ~= 'OPEN' then redis.call('ZREM', UPLOADS, id) end
else
  redis.call('ZREM', DUTIES, kind .. '|' .. id)
  if kind == 'PURGE' then redis.call('HDEL', KEYS[9], id) end
end
return { '' }
