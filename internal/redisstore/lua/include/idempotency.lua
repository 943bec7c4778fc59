-- Idempotency keys: expiry, the id that was made, the request's fingerprint.
-- $include(turn.lua)

-- known_id returns the id that a key's value names, and whether it was made by another request.
local function known_id(raw, fingerprint)
  if not raw then return nil end
  local expires, id, first = string.match(raw, '^(%d+) (%S+) (.*)$')
  if tonumber(expires) <= NOW then return nil end
  return id, first ~= fingerprint
end

local function key_value(fingerprint, id, ttl) return score_text(NOW + ttl) .. ' ' .. id .. ' ' .. fingerprint end
