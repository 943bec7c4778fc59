// Package bound says what no policy of a pool can do better than, from the
// pool's limits and the least time that a machine takes to start. It knows
// neither the autoscaler nor its simulation.
//
// The case is a burst: all jobs come at the same instant, to a pool without
// machines. A job waits until its main task starts.
//
// # Why nothing beats it
//
// By the instant t the provider has taken at most burst + rate·t creations, so
// the k-th machine (from 0) can't take work before
//
//	a(k) = start + max(0, (k+1-burst)/rate)
//
// and there are never more machines at once than the limit. So at most R(t),
// the number of k below the limit with a(k) ≤ t, work at an instant t, with as
// many slots each. A job that has started by t has ended by t, or runs at t.
// Of the latter there are at most as many as slots at t. Those that have ended
// by t are bounded twice:
//
//   - By tracks. Give each task that ran the lowest track that is free when it
//     starts. At that instant u fewer than R(u) slots are taken by others, so
//     track k is used from a(k) on only, and it holds one task at a time, none
//     shorter than the shortest: by t it has ended at most (t-a(k)) / shortest
//     of them, rounded down. This holds whatever machines were destroyed and
//     made again in between.
//   - By time. All tracks together have had the sum of t-a(k), in which the n
//     shortest tasks have to fit, if n have ended.
//
// The number of jobs that have started by t is at most the slots at t and the
// smaller of both. The time by which that reaches a share of the jobs is a
// lower bound for the wait of that share: were it shorter, more jobs would
// have started by then than can. Probes, failures, the time that a worker
// takes to be given a task, all only add to it.
package bound

import (
	"math"
	"slices"
	"time"
)

// Pool is what a policy can't change.
type Pool struct {
	Limit     int           // machines at once
	Slots     int           // of each
	PerSecond float64       // creations that the provider takes; 0: any number
	Burst     int           // that it takes at once
	Start     time.Duration // the least that a machine takes, from its creation until it works
}

// ready is when machine k, from 0, can work.
func (p Pool) ready(k int) time.Duration {
	if p.PerSecond <= 0 || k < p.Burst {
		return p.Start
	}
	return p.Start + time.Duration(math.Floor(float64(k+1-p.Burst)/p.PerSecond*float64(time.Second)))
}

// BurstWait is the least that the share of jobs which waits longest has to wait:
// with 0.95, no policy has a shorter 95th percentile of waits. tasks are what
// the main tasks of the jobs take.
func BurstWait(p Pool, tasks []time.Duration, share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(tasks))
	rank := int(math.Ceil(share * float64(len(sorted)))) // the wait of the rank-th that starts
	if rank == 0 || p.Limit <= 0 || p.Slots <= 0 {
		return 0
	}
	never := p.ready(p.Limit-1) + total(sorted) // one slot alone would have done all by then
	low, high := time.Duration(0), never
	for low < high {
		middle := low + (high-low)/2
		if p.started(sorted, middle) >= rank {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// started is the most jobs that can have started by an instant.
func (p Pool) started(sorted []time.Duration, by time.Duration) int {
	slots, whole := 0, 0
	var had time.Duration // by all slots
	shortest := max(1, sorted[0])
	for k := range p.Limit {
		each := by - p.ready(k)
		if each < 0 {
			break
		}
		slots += p.Slots
		whole += p.Slots * int(each/shortest)
		had += time.Duration(p.Slots) * each
	}
	fit := 0
	for _, task := range sorted {
		if had -= task; had < 0 {
			break
		}
		fit++
	}
	return slots + min(whole, fit)
}

func total(tasks []time.Duration) time.Duration {
	var sum time.Duration
	for _, task := range tasks {
		sum += task
	}
	return sum
}
