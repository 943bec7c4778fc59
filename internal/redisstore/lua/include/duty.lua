-- Duties: work outside the store, in DUTIES as kind|id by when to hand it out.
-- $include(clock.lua)
local VISIBILITY = 60000 -- a duty that was handed out comes again after that

-- purge_again_field is where the purges keep when a duty to purge comes once more.
local function purge_again_field(id) return 'again|' .. id end
