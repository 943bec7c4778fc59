-- Duties: work outside the store, in DUTIES as kind|id by when to hand it out.
-- $include(clock.lua)
-- $include(write.lua)
-- $include(wake.lua)
-- Later than any URL that was signed for a lease: they live 5 minutes longer than it.
local CLEAN_AFTER = 6 * 60 * 1000
local VISIBILITY = 60000 -- a duty that was handed out comes again after that

-- hidden_until is when a duty that is handed out now comes again.
local function hidden_until(duty)
  return NOW + (string.sub(duty, 1, 7) == 'STREAM|' and 10000 or VISIBILITY)
end

-- purge_again_field is where the purges keep when a duty to purge comes once more.
local function purge_again_field(id) return 'again|' .. id end

-- clean_later leaves the duty to remove what no output of a job names.
local function clean_later(id, lease_ms)
  local at = NOW + lease_ms + CLEAN_AFTER
  zadd(DUTIES, string.format('%.0f', at), 'CLEAN|' .. id)
  due(at)
end
