-- Leases ready tasks to workers.
-- KEYS  common. Derived: the workers, the queues of the projects in turn, and the jobs of the tasks that were taken,
--       with what a lease needs of them.
-- ARGV  prefix; claims (see claim.lua) as requests (see request.lua)
-- Returns  {answer, ...}: {'', 1 if tasks that a claim could get are still ready else 0, 1 if the worker is refused
--          else 0, lease row (see lease.lua), ...}; refused is one that is unknown, detached, draining or in a newer session
-- Replay   the leases of the first answer that are still held, as long as the request is one of the newest two that
--          gave the worker any. An empty answer isn't kept.
-- $include(claim.lua)
-- $include(request.lua)
local requests = read_requests()
local answers = claim_all(requests)
write_out()
finish_rows()
local more = redis.call('EXISTS', RING)
for _, answer in ipairs(answers) do answer[2] = more end
return answers
