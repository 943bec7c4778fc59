// Package redisstore keeps the state of tcoder in Redis 7 or newer. It is the
// only owner of go-redis, and the only writer of the keys below one hash tag.
//
// Every verb of [pipeline.Store] is one Lua script (lua/<verb>.lua, whose
// header is its contract), so it is one atomic step and one call. States move
// only by the tables that genstate renders from package pipeline. All keys
// share the hash tag, so that a script may touch queue, job and worker
// together, on a single node as on a cluster.
//
// The verbs that are called for every task (CreateJob, ClaimTasks,
// RenewLeases, CommitSegments, FinishTask, CompleteJob) share calls: while one is in flight,
// the requests that come wait and go together in the next, 128 at most, or
// at once when they are a crowd. A
// caller that is alone pays one round trip. Each request has its own answer;
// where a script fails as a whole, its requests are sent again one by one. A
// caller whose context ends stops waiting, and what it asked for may happen
// nevertheless; each of these calls may be repeated.
//
// # Layout
//
//	j:<job>        packed  what changes of a job, its first task and its newest events; see lua/include/record.lua
//	t:<job>-<i>    packed  every other task; see there
//	e:<job>        list  chunks of older events, packed; the newest 1,000 are kept
//	x:<job>        hash  what few jobs have: failure, upload, followers of tasks and their ended attempts
//	d:<job>        packed  what never changes: spec, source, labels; see spec.go
//	b:, g:<job>    JSON  probe and plan
//	r:<job>-<i>    JSON  the result of a task
//	o:, s:<job>    JSON  outputs, and these without their objects if they are many
//	c:<job>        hash  what is committed of a stream; see lua/include/stream.lua
//	u:<upload>     hash  an upload; n is how many jobs have it as their source
//	i:<project>:<state>  zset of job ids, all scores 0: pages by ULID, and counts what waits
//	ended          zset  jobs by when they ended, for their retention
//	q:<project>    zset  ready tasks by priority, time of the job, index
//	ring, parked   zset  projects with ready tasks, whose turn is next; those at their limit
//	past, turns    zset, hash  what else turns need; see lua/include/turn.lua
//	leases         zset  leases, "<worker> <task> <attempt>", by deadline
//	held           zset  the same, all scores 0: what a worker holds
//	delayed        zset  tasks by the end of their backoff
//	uploads        zset  open uploads by deadline
//	duties, purges zset, hash  work outside the store, and what deleted jobs were
//	w:, v:<worker>, workers, sessions  workers, what claims ask of them, and by when they were last seen
//	k:..., expiring  idempotency keys, and in a list which of them expire when
//	machines, mw:<machine>  machines as JSON, and their workers
//	pool           hash  its settings and what the leader tells of it
//	pace:<name>    string  whose turn it is to call the provider
//	broken         zset  jobs with a record that can't be read, until the sweeper sets them aside
//	sweep          hash  leader, its deadline, the last sweep, the next
//	layout         version of all this; see layout.go
//	clock          what tests moved the clock by, or stopped it at
//
// A task is named "<job>-<index>" with its index padded to five digits in all
// zsets, so that equal scores sort by index. Ids of jobs, tasks, claims and
// workers have no spaces. Channels: notices tells of events and progress of all jobs,
// once per call of a script, wake of work for the control plane; on n:<job>
// nothing is told, but who subscribes is counted.
//
// What survives a crash of Redis is what its append-only file kept. What
// survives a crash of a caller is everything: each method may be repeated.
package redisstore
