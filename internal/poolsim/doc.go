// Package poolsim runs a pool in fake time: the real autoscaler and a real
// store, against a cloud that follows a script. A day takes seconds, and the
// same seed gives the same day.
//
// What is real: [autoscale.Reconciler] with Decide, and every verb of the
// store that a job, a task, a worker and a sweep go through ([memstore]).
// What is played: the provider's machines and its API ([Cloud]: start
// latencies, limits of calls, failures), the workers, which claim, hold and
// end tasks as long as the trace says, ask to leave when they have been idle,
// or die with their machines; and the dispatcher, by the rule of the one in
// services/pool.
//
// [Run] plays a [Trace] by a [Policy] and returns an [Outcome]: what was
// waited, what the machines ran for, what that costs, and the pool over time,
// which [Outcome.SVG] draws. What no policy can do better than is in the
// package bound, which knows nothing of this one.
package poolsim
