-- Idempotency keys: expiry, the id that was made, the request's fingerprint.
-- $include(clock.lua)

-- known_id returns the id that was made with a key, and whether by another request.
local function known_id(key, fingerprint)
  local raw = redis.call('GET', key)
  if not raw then return nil end
  local expires, id, first = string.match(raw, '^(%d+) (%S+) (.*)$')
  if tonumber(expires) <= NOW then return nil end
  return id, first ~= fingerprint
end

local function remember_id(key, fingerprint, id, ttl)
  redis.call('SET', key, NOW + ttl .. ' ' .. id .. ' ' .. fingerprint, 'PX', ttl)
end
