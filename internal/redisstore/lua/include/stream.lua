-- Streams: what is committed of a run before its tasks are done. A hash: n how
-- many commits there are, 1 to n these, JSON; k<i> of task i how many segments
-- of each rendition; at when it was published, shown what was, JSON.
-- $include(task.lua)
local STREAM_EVERY = 1000

local function stream_duty(id) return 'STREAM|' .. id end
