-- Idempotency keys: expiry, the id that was made, the request's fingerprint.
-- Those that calls wrote are in EXPIRING, a chunk each: the latest expiry, and
-- the keys. The sweeper removes them: a time to live would be a command for each.
-- $include(binary.lua)
-- $include(read.lua)
-- $include(write.lua)

-- known_id returns the id that a key's value names, and whether it was made by another request.
local function known_id(raw, fingerprint)
  if not raw then return nil end
  local expires, id, first = string.match(raw, '^(%d+) (%S+) (.*)$')
  if tonumber(expires) <= NOW then return nil end
  return id, first ~= fingerprint
end

local KEPT = { 0 }

-- keep_key notes the value of a key, to be written with keep_keys.
local function keep_key(key, fingerprint, id, ttl)
  local value = deadline_text(ttl) .. ' ' .. id .. ' ' .. fingerprint
  READ[key] = value
  set(key, value)
  if NOW + ttl > KEPT[1] then KEPT[1] = NOW + ttl end
  KEPT[#KEPT + 1] = key
end

local function keep_keys()
  if KEPT[2] then redis.call('RPUSH', EXPIRING, cmsgpack.pack(unpack(KEPT))) end
end

-- forget_keys removes keys that expired, so many at a time that a busy store keeps up.
local function forget_keys()
  local left = 2048
  while left > 0 do
    local chunk = redis.call('LINDEX', EXPIRING, 0)
    local list = chunk and { cmsgpack.unpack(chunk) }
    if not list or list[1] > NOW then return end
    redis.call('LPOP', EXPIRING)
    for i = 2, #list do
      local raw = redis.call('GET', list[i])
      -- It may have been given again since.
      if raw and tonumber(string.match(raw, '^%d+')) <= NOW then del(list[i]) end
    end
    left = left - #list
  end
end
