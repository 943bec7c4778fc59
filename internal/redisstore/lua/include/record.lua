-- How jobs and tasks are packed: j:<job> is HEAD, the job's first task (HOT
-- and COLD), REST, and the newest events of the job, those after base; t:<job>-<i>
-- is every other task. What most calls change is in front: they take that apart,
-- and leave what is behind as it is. Whoever changes a format raises the version in
-- layout.go.
-- $include(binary.lua)
-- $include(read.lua)
-- $include(out.lua)
-- Of a job: project, progress (media time, speed, fps, time left), state, run, sequence, base, open (tasks of the run that
-- aren't done), longest lease that was given, left (1: there may be objects that no output names), stream (1:
-- segments were committed), uploaded (1: up names its upload), started, playable, finished (ms, 0: not yet), weight of all tasks of the run, what of that is
-- done, percent.
local HEAD = '>Bc0Bc0BI2I4I4I3I5BBBI6I6I6ddd'
-- Of a task: state, last (1: it was the last of its run), newest attempt, when that began (of a DELAYED
-- task, when it wakes), its share of the job's progress, fraction of the attempt, when that was stored (of a DONE task, when it was done), follow (1: f<i> is
-- there), worker of the attempt. A state of 0 is a first task that isn't there yet.
local HOT = '>BBI3I6ddI6BBc0'
-- Of a task: run, charged, losses, attempts in a row that a machine spoilt, tasks that it waits for, JSON: what it is.
local COLD = 'I2I2I2BI3I2c0'
-- Of a job: tasks over all runs, index of the run's first task, priority, created, queued, planned.
local REST = 'I3I3i2I6I6I6'
-- Events: type, plus 64 with index + 1 and attempt of a task, plus 192 with these (0: none), reason and message.
local EVENT, TASK_EVENT, TEXT_EVENT = '>BI6', '>BI6I3I3', '>BI6I3I3I3c0'
local EVENT_TYPES = {
  CREATED = 1, QUEUED = 2, STARTED = 3, PLANNED = 4, PLAYABLE = 5, COMPLETED = 6, FAILED = 7, CANCELED = 8,
  RETRIED = 9, TASK_LEASED = 10, TASK_DONE = 11, TASK_DELAYED = 12, TASK_DEAD = 13,
}
local JOB_STATES = { 'UPLOADING', 'PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELED' }
local TASK_STATES = { 'BLOCKED', 'READY', 'LEASED', 'DELAYED', 'DONE', 'DEAD', 'CANCELED' }
local EVENTS_BEHIND = 50 -- a job at most, and in each chunk at least
local pack, unpack_struct, sub = struct.pack, struct.unpack, string.sub

-- found_broken notes a job of which a record can't be read: the sweeper sets it aside, see aside.lua.
local function found_broken(id, project)
  zadd(BROKEN, STAMP, id .. ' ' .. project)
  due(NOW)
end
