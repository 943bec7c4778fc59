-- The lead: SWEEP has who leads, until when, and its term, which rises
-- whenever another process comes to lead.
-- $include(keys.lua)

-- may_act reports whether a term is the newest one; 0 is of who needs no lead.
local function may_act(term) return term == '0' or redis.call('HGET', SWEEP, 'term') == term end
