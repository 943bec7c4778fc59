package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func fairTests() map[string]func(*env) {
	return map[string]func(*env){
		"ProjectsTakeTurns":           fairTurns,
		"InOneClaimToo":               fairInOneClaim,
		"OneByOneStarvesNobody":       fairOneByOne,
		"LateComersDontCatchUp":       fairLateComers,
		"LeavingGainsNothing":         fairLeaving,
		"PriorityGoesBeforeTurns":     fairPriority,
		"EachPriorityHasItsTurns":     fairEachPriority,
		"LimitPassesAProjectOver":     fairLimit,
		"LimitCanChange":              fairLimitChanges,
		"EveryEndOfALeaseIsCounted":   fairEveryEnd,
		"EndOfALeaseWakesItsProject":  fairWakes,
		"RaisedLimitWakes":            fairRaisedLimitWakes,
		"RaisedLimitKeepsTurns":       fairRaisedLimitKeepsTurns,
		"PositionCountsTheOthers":     fairPosition,
		"ReadyLeavesOutTheLimited":    fairStats,
		"EachProjectIsServedInTheEnd": fairEverybody,
	}
}

// queued creates jobs of a project and returns their ids.
func (e *env) queued(project string, n, priority int) []string {
	e.Helper()

	ids := make([]string, 0, n)

	for range n {
		j := newJob()
		j.Project, j.Priority = project, priority
		ids = append(ids, e.jobOf(j).ID)
	}

	return ids
}

// claimed claims with a limit of running tasks for each project.
func (e *env) claimed(w worker, most, limit int) pipeline.Claimed {
	e.Helper()

	got, err := e.store.ClaimTasks(e.ctx(), pipeline.Claim{
		RequestID: fmt.Sprint(e.claims.Add(1)), WorkerID: w.id, Session: w.session, Max: most, Lease: leaseFor,
		RunningLimit: limit,
	})
	require.NoError(e, err)

	return got
}

// count is how many leases are of each project.
func count(leases []pipeline.Lease) map[string]int {
	n := map[string]int{}
	for _, l := range leases {
		n[l.Job.Project]++
	}

	return n
}

// However much one project has, another's few jobs wait for a turn each.
func fairTurns(e *env) {
	w := e.attach("w1")
	many, few := e.queued("many", 30, 0), e.queued("few", 3, 0)

	var leases []pipeline.Lease
	for range 6 {
		leases = append(leases, e.claimOne(w))
	}

	require.Equal(e, map[string]int{"many": 3, "few": 3}, count(leases))

	of := map[string][]string{}
	for _, l := range leases {
		of[l.Job.Project] = append(of[l.Job.Project], l.Job.ID)
	}

	require.Equal(e, many[:3], of["many"], "the oldest first")
	require.Equal(e, few, of["few"])
}

func fairInOneClaim(e *env) {
	w := e.attach("w1")

	for _, project := range []string{"a", "b", "c", "d"} {
		e.queued(project, 20, 0)
	}

	require.Equal(e, map[string]int{"a": 3, "b": 3, "c": 3, "d": 3}, count(e.claim(w, 12)))
	require.Equal(e, map[string]int{"a": 17, "b": 17, "c": 17, "d": 17}, count(e.claim(w, 100)))
	require.Empty(e, e.claim(w, 1))
}

// A project that submits one job at a time gets its turn, and no more than that.
func fairOneByOne(e *env) {
	w := e.attach("w1")
	e.queued("many", 40, 0)

	for range 15 {
		e.queued("few", 1, 0)

		leases := append(e.claim(w, 1), e.claim(w, 1)...)
		require.Equal(e, map[string]int{"many": 1, "few": 1}, count(leases))
	}
}

// A project that comes late takes turns from then on: it isn't owed what others had before.
func fairLateComers(e *env) {
	w := e.attach("w1")
	e.queued("early", 60, 0)
	require.Len(e, e.claim(w, 30), 30)
	e.queued("late", 30, 0)

	for range 5 {
		require.Equal(e, map[string]int{"early": 2, "late": 2}, count(e.claim(w, 4)))
	}
}

// A project whose queue runs empty doesn't come back ahead of its turn.
func fairLeaving(e *env) {
	w := e.attach("w1")
	e.queued("b", 40, 0)

	a := 0

	for range 20 {
		e.queued("a", 1, 0) // there is always one before the claim
		a += count(e.claim(w, 1))["a"]
		e.drainOne(w, "a")
	}

	require.InDelta(e, 10, a, 1)
}

// drainOne cancels the jobs of a project that still wait.
func (e *env) drainOne(w worker, project string) {
	e.Helper()

	for _, id := range e.list(pipeline.JobFilter{Project: project, States: []pipeline.JobState{pipeline.JobPending}, Limit: 100}) {
		_, err := e.store.CancelJob(e.ctx(), id)
		require.NoError(e, err)
	}

	require.NotEmpty(e, w.id)
}

// A better priority goes first, whosever turn it is.
func fairPriority(e *env) {
	w := e.attach("w1")
	e.queued("a", 5, 0)
	urgent := e.queued("b", 5, 10)
	low := e.queued("b", 1, -10)

	for _, id := range urgent {
		require.Equal(e, id, e.claimOne(w).Job.ID)
	}

	require.Equal(e, map[string]int{"a": 5}, count(e.claim(w, 5)))
	require.Equal(e, low[0], e.claimOne(w).Job.ID)
}

// What a project had of one priority isn't held against it at another.
func fairEachPriority(e *env) {
	w := e.attach("w1")
	e.queued("a", 20, 10)
	require.Len(e, e.claim(w, 20), 20)
	e.queued("a", 10, 0)
	e.queued("b", 10, 0)
	require.Equal(e, map[string]int{"a": 2, "b": 2}, count(e.claim(w, 4)))
}

// A project at its limit is passed over until one of its leases ends; More
// doesn't speak of what no claim can get.
func fairLimit(e *env) {
	w := e.attach("w1")
	ids := e.queued("a", 4, 0)

	got := e.claimed(w, 3, 2)
	require.Len(e, got.Leases, 2)
	require.False(e, got.More, "a is at its limit")
	require.Equal(e, pipeline.WaitProject, e.get(ids[2]).Wait)
	require.Equal(e, int64(1), e.get(ids[3]).WaitPosition)

	e.queued("b", 3, 0)
	more := e.claimed(w, 1, 2)
	require.Equal(e, map[string]int{"b": 1}, count(more.Leases))
	require.True(e, more.More)
	more = e.claimed(w, 5, 2)
	require.Equal(e, map[string]int{"b": 1}, count(more.Leases))
	require.False(e, more.More)

	e.queued("a", 1, 50) // nor does its priority help
	require.Empty(e, e.claimed(w, 5, 2).Leases)

	stats, err := e.store.PoolStats(e.ctx())
	require.NoError(e, err)
	require.Equal(e, pipeline.PoolStats{LeasedTasks: 4, LimitedTasks: 4}, stats, "a has three more, b has one")

	view, err := e.store.ReadPool(e.ctx())
	require.NoError(e, err)
	require.Equal(e, stats, view.Stats)

	e.finish(w, got.Leases[0].Ref)
	require.Equal(e, pipeline.WaitQueue, e.get(ids[2]).Wait)

	again := e.claimed(w, 5, 2)
	require.Equal(e, map[string]int{"a": 1}, count(again.Leases))
	require.Equal(e, 50, again.Leases[0].Job.Priority)
	require.False(e, again.More)
}

// The limit is what the newest claim says.
func fairLimitChanges(e *env) {
	w := e.attach("w1")
	e.queued("a", 10, 0)
	require.Len(e, e.claimed(w, 5, 2).Leases, 2)
	require.Empty(e, e.claimed(w, 5, 2).Leases)

	got := e.claimed(w, 5, 4)
	require.Len(e, got.Leases, 2)
	require.False(e, got.More)

	got = e.claimed(w, 1, 0)
	require.Len(e, got.Leases, 1)
	require.True(e, got.More)

	require.Empty(e, e.claimed(w, 5, 5).Leases)
	require.Empty(e, e.claimed(w, 5, 1).Leases)
	require.Len(e, e.claimed(w, 9, 0).Leases, 5)
}

// Whatever way attempts end, none is counted as running afterwards, and none
// is forgotten while it does: a claim gets exactly as many as the limit says.
func fairEveryEnd(e *env) {
	const limit = 3

	attach := func() worker {
		session, _, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: "w1", MachineID: "m1"}, leaseFor)
		require.NoError(e, err)

		return worker{"w1", session}
	}
	w := attach()

	ends := map[string]func(pipeline.Lease){
		"finish":  func(l pipeline.Lease) { e.plan(w, l) },
		"plan":    func(l pipeline.Lease) { e.plan(w, l, encode(1), encode(1, 0)) },
		"retry":   func(l pipeline.Lease) { e.fail(w, l.Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed) },
		"kill":    func(l pipeline.Lease) { e.fail(w, l.Ref, pipeline.FaultInput, pipeline.ReasonInputCorrupt) },
		"machine": func(l pipeline.Lease) { e.fail(w, l.Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault) },
		"release": func(l pipeline.Lease) { e.release(w, l.Ref) },
		"cancel": func(l pipeline.Lease) {
			_, err := e.store.CancelJob(e.ctx(), l.Job.ID)
			require.NoError(e, err)
		},
		"delete": func(l pipeline.Lease) {
			_, err := e.store.CancelJob(e.ctx(), l.Job.ID)
			require.NoError(e, err)
			require.NoError(e, e.store.DeleteJob(e.ctx(), l.Job.ID))
		},
		"forgotten by its worker": func(pipeline.Lease) { w = attach() },
		"lost":                    func(pipeline.Lease) { require.Positive(e, e.pass(leaseFor+time.Second).Requeued) },
		"quarantined": func(pipeline.Lease) {
			policy := sweepBy(replica)
			policy.Retry.MaxLosses = 1
			e.sweep()

			for range 5 {
				e.advance(e.T, leaseFor/4)
				_, err := e.store.Sweep(e.ctx(), policy)
				require.NoError(e, err)
			}
		},
		"machine lost": func(pipeline.Lease) { require.NoError(e, e.store.LoseMachine(e.ctx(), "m1", 0)) },
	}

	for name, end := range ends {
		e.queued("a", 8, 0)

		w = attach()
		leases := e.claimed(w, 10, limit).Leases
		require.Len(e, leases, limit, name)

		for _, l := range leases {
			end(l)

			if name == "lost" || name == "quarantined" || name == "machine lost" || name == "forgotten by its worker" {
				break // all at once
			}
		}

		w = attach() // whatever it still holds is given back
		e.drainOne(w, "a")

		for _, id := range e.list(pipeline.JobFilter{
			Project: "a", States: []pipeline.JobState{pipeline.JobRunning}, Limit: 100,
		}) {
			_, err := e.store.CancelJob(e.ctx(), id)
			require.NoError(e, err)
		}

		stats, err := e.store.PoolStats(e.ctx())
		require.NoError(e, err)
		require.Equal(e, pipeline.PoolStats{}, stats, name)
	}

	e.queued("a", 8, 0)
	require.Len(e, e.claimed(e.attach("w2"), 10, limit).Leases, limit)
}

// A project that had as many leases as it may isn't paid for the turns of that time when more may run.
func fairRaisedLimitKeepsTurns(e *env) {
	w := e.attach("w1")
	e.queued("a", 10, 0)
	e.queued("b", 20, 0)

	first := e.claimed(w, 2, 1).Leases
	require.Len(e, first, 2)

	for running, n := first[1], 0; n < 10; n++ { // of b; a's goes on
		e.finish(w, running.Ref)
		running = e.claimed(w, 1, 1).Leases[0]
	}

	order := []string{}
	for _, l := range e.claimed(w, 8, 20).Leases {
		order = append(order, l.Job.Project)
	}

	require.Equal(e, strings.Split("aabababa", ""), order)
}

// Whoever has free slots looks again when more may run: it may be another replica that was told the limit.
func fairRaisedLimitWakes(e *env) {
	for _, raised := range []int{2, 0} { // 0: any number
		w := e.attach(fmt.Sprintf("w%d", raised))
		e.queued(fmt.Sprintf("p%d", raised), 2, 0)
		require.Len(e, e.claimed(w, 1, 1).Leases, 1)
		require.False(e, e.claimed(w, 1, 1).More)

		woken := e.wakes()

		require.True(e, e.claimed(w, 0, raised).More)
		woken(pipeline.WakeReady)
		require.Len(e, e.claimed(w, 1, raised).Leases, 1)
	}
}

// Who waits for a task is told when a project comes back from its limit.
func fairWakes(e *env) {
	w := e.attach("w1")
	e.queued("a", 3, 0)

	leases := e.claimed(w, 3, 1).Leases
	require.Len(e, leases, 1)

	expect := e.wakes()
	e.plan(w, leases[0])
	expect(pipeline.WakeReady)
}

// The position is what goes first, of the own project and of the others.
func fairPosition(e *env) {
	w := e.attach("w1")
	e.queued("many", 20, 0)
	mine := e.queued("a", 5, 0)
	urgent := e.queued("urgent", 4, 50)

	for i, id := range mine {
		before := e.get(id).WaitPosition
		// Of "many" one goes with each of its own, of "urgent" all do.
		require.InDelta(e, len(urgent)+i+i, before, 1)
	}

	// And so it comes.
	position := e.get(mine[3]).WaitPosition
	require.NotContains(e, ids(e.claim(w, int(position))), mine[3])
	require.Equal(e, []string{mine[3]}, ids(e.claim(w, 1)))
}

func ids(leases []pipeline.Lease) []string {
	list := make([]string, 0, len(leases))
	for _, l := range leases {
		list = append(list, l.Job.ID)
	}

	return list
}

// What no worker would be given isn't counted as ready: no machine is started for it.
func fairStats(e *env) {
	w := e.attach("w1")
	e.queued("a", 5, 0)
	e.advance(e.T, 10*time.Second)
	e.queued("b", 1, 0)

	stats := func() pipeline.PoolStats {
		s, err := e.store.PoolStats(e.ctx())
		require.NoError(e, err)

		return s
	}
	require.Equal(e, int64(6), stats().ReadyTasks)
	require.InDelta(e, 10, stats().OldestReady.Seconds(), 5)

	leases := e.claimed(w, 1, 1).Leases
	require.Equal(e, map[string]int{"a": 1}, count(leases))
	require.Equal(e, int64(1), stats().ReadyTasks)
	require.Less(e, stats().OldestReady, 5*time.Second)

	e.plan(w, leases[0])
	require.Equal(e, int64(5), stats().ReadyTasks)
	require.InDelta(e, 10, stats().OldestReady.Seconds(), 5)
}

// With many projects of every size and priority each task is leased once.
func fairEverybody(e *env) {
	w := e.attach("w1")
	want := map[string]bool{}

	for n := range 40 {
		for _, id := range e.queued(fmt.Sprint("p", n), 1+n%7, []int{0, 0, 5}[n%3]) {
			want[id] = true
		}
	}

	for i := 0; len(want) > 0; i++ {
		got := e.claimed(w, 1+i%9, 0)
		require.NotEmpty(e, got.Leases)

		for _, l := range got.Leases {
			require.True(e, want[l.Job.ID])
			delete(want, l.Job.ID)
		}

		require.Equal(e, len(want) > 0, got.More)
	}
}
