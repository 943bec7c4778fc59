-- Idempotency keys: expiry, the id that was made, the request's fingerprint.
-- $include(turn.lua)

-- known_id returns the id that a key's value names, and whether it was made by another request.
local function known_id(raw, fingerprint)
  if not raw then return nil end
  local expires, id, first = string.match(raw, '^(%d+) (%S+) (.*)$')
  if tonumber(expires) <= NOW then return nil end
  return id, first ~= fingerprint
end

local KEPT = {}

-- keep_key notes the value of a key, to be written by keep_keys, and returns it.
local function keep_key(key, fingerprint, id, ttl)
  local value = deadline_text(ttl) .. ' ' .. id .. ' ' .. fingerprint
  KEPT[#KEPT + 1] = { key, value, ttl }
  return value
end

local function keep_keys()
  for _, k in ipairs(KEPT) do redis.call('SET', k[1], k[2], 'PX', k[3]) end
end
