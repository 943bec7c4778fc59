// Package redisstore keeps the state of tcoder in Redis 7 or newer. It is the
// only owner of go-redis, and the only writer of the keys below one hash tag.
//
// Every verb of [pipeline.Store] is one Lua script (lua/<verb>.lua, whose
// header is its contract), so it is one atomic step and one call. States move
// only by the tables that genstate renders from package pipeline. All keys
// share the hash tag, so that a script may touch queue, job and worker
// together, on a single node as on a cluster.
//
// # Layout
//
//	j:<job>        hash  what changes of a job: state, times, counters; t<i> its
//	                     tasks, a<i> their ended attempts, e<n> its newest 1,000 events
//	d:<job>        JSON  what never changes: spec, source, labels
//	x:<job>        hash  JSON: probe, plan, results of tasks, outputs
//	u:<upload>     hash  an upload
//	i:<project>:<state>  zset of job ids, all scores 0: pages by ULID
//	ready          zset  tasks by priority, time of the job, index
//	leases         zset  leased tasks by deadline
//	delayed        zset  tasks by the end of their backoff
//	uploads        zset  open uploads by deadline
//	duties, purges zset, hash  work outside the store, and what deleted jobs were
//	w:<worker>, workers, sessions  workers, by when they were last seen
//	h:<worker>     hash  the leases it holds: attempt, weight, fraction, when that was stored
//	c:<worker>:<request>  the answer of a claim, for a minute
//	k:...          idempotency keys
//	machines, mw:<machine>  machines as JSON, and their workers
//	sweep          hash  leader, its deadline, the last sweep, the next
//	clock          what tests moved the clock by
//
// A task is named "<job>-<index>" with its index padded to five digits in all
// zsets, so that equal scores sort by index. Channels: n:<job> tells of a
// job's events and progress, wake of work for the control plane.
//
// What survives a crash of Redis is what its append-only file kept. What
// survives a crash of a caller is everything: each method may be repeated.
package redisstore
