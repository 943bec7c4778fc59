package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func poolTests() map[string]func(*env) {
	return map[string]func(*env){
		"AnOldLeaderIsRefused":    poolOldLeader,
		"SomeWorkersAreKept":      poolKeepsSome,
		"ShowsAllAtOnce":          poolShowsAll,
		"CountsWork":              poolCountsWork,
		"SettingsHaveVersions":    poolSettings,
		"AChangeWakes":            poolChangeWakes,
		"TheReportIsTheLeadersTo": poolReport,
		"TurnsComeAtTheirPace":    poolTurns,
	}
}

func (e *env) pool() pipeline.PoolView {
	e.Helper()

	v, err := e.store.ReadPool(e.ctx())
	require.NoError(e, err)

	return v
}

// lead sweeps as a replica that had a term, and returns its term now.
func (e *env) lead(name string, term int64) int64 {
	e.Helper()

	swept, err := e.store.Sweep(e.ctx(), pipeline.SweepRequest{Replica: name, LeaderTTL: leadFor, Lease: leaseFor, Term: term})
	require.NoError(e, err)
	require.True(e, swept.Leader)

	return swept.Term
}

// A leader that was paused while another one came to lead changes nothing any
// more, and neither does a process that has its name.
func poolOldLeader(e *env) {
	first := e.lead("one", 0)
	require.Equal(e, first, e.lead("one", first), "it goes on")

	again := e.lead("one", 0)
	require.Greater(e, again, first, "a new process of the same name")
	e.advance(e.T, leadFor)

	next := e.lead("two", 0)
	require.Greater(e, next, again)

	follower, err := e.store.Sweep(e.ctx(), pipeline.SweepRequest{Replica: "one", LeaderTTL: leadFor, Lease: leaseFor, Term: again})
	require.NoError(e, err)
	require.False(e, follower.Leader)
	require.Equal(e, next, e.pool().Term)

	ok, err := e.store.ReserveMachine(e.ctx(), pipeline.Machine{ID: "m1"}, 5, next)
	require.NoError(e, err)
	require.True(e, ok)

	for _, old := range []int64{first, again} {
		_, err = e.store.ReserveMachine(e.ctx(), pipeline.Machine{ID: "m2"}, 5, old)
		e.refused(pipeline.ReasonLeaseLost, err)
		_, err = e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: "m1", By: pipeline.MachineBreak, ProviderID: "x", Term: old})
		e.refused(pipeline.ReasonLeaseLost, err)
		e.refused(pipeline.ReasonLeaseLost, e.store.LoseMachine(e.ctx(), "m1", old))
		e.refused(pipeline.ReasonLeaseLost, e.store.ReportPool(e.ctx(), pipeline.PoolReport{Desired: 7}, old))
	}

	machines := e.pool().Machines
	require.Len(e, machines, 1)
	require.Equal(e, pipeline.MachineCreating, machines[0].State)
	require.Empty(e, machines[0].ProviderID)
	require.NoError(e, e.store.LoseMachine(e.ctx(), "m1", next))
}

func poolKeepsSome(e *env) {
	sessions := map[string]int64{}

	for _, id := range []string{"w1", "w2", "w3"} {
		var err error

		sessions[id], _, err = e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: id, MachineID: "m-" + id, Slots: 1}, leaseFor)
		require.NoError(e, err)
	}

	e.attach("static") // none of ours

	leave := func(id string, keep int) bool {
		ok, err := e.store.LeaveWorker(e.ctx(), id, sessions[id], keep)
		require.NoError(e, err)

		return ok
	}
	require.False(e, leave("w1", 3))
	require.True(e, leave("w1", 2))
	require.True(e, leave("w1", 3), "a replay")
	require.False(e, leave("w2", 2))
	require.True(e, leave("w2", 1))
	require.False(e, leave("w3", 1))
}

func poolShowsAll(e *env) {
	empty := e.pool()
	require.Empty(e, empty.Machines)
	require.Empty(e, empty.Workers)
	require.Zero(e, empty.Waiting)
	require.Zero(e, empty.Version)

	e.reserve("m2", 5)
	e.reserve("m1", 5)
	e.job()
	e.job()
	w := e.attach("w1")
	e.claimOne(w)

	v := e.pool()
	stats, err := e.store.PoolStats(e.ctx())
	require.NoError(e, err)
	require.InDelta(e, stats.OldestReady, v.Stats.OldestReady, float64(time.Minute))
	v.Stats.OldestReady = stats.OldestReady
	require.Equal(e, stats, v.Stats)

	machines, err := e.store.ListMachines(e.ctx())
	require.NoError(e, err)
	require.Equal(e, machines, v.Machines)
	require.Equal(e, e.workers(), v.Workers)
	require.Equal(e, pipeline.Work{Probes: 1}, v.Waiting)
	require.Equal(e, pipeline.Work{Probes: 1}, v.Running)
	require.WithinDuration(e, time.Now(), v.Now, time.Hour)
}

// What waits and what is left of what runs is told by kind and weight, and
// how fast what runs is.
func poolCountsWork(e *env) {
	w := e.attach("w1")
	sound := pipeline.NewTask{Kind: pipeline.KindAudio, Output: "hls", Weight: 3}
	j := e.planned(w, encode(10), encode(20), sound)

	v := e.pool()
	require.Equal(e, pipeline.Work{Encodes: 2, EncodeWeight: 30, Lights: 1, LightWeight: 3}, v.Waiting)
	require.Zero(e, v.Running)
	require.InDelta(e, 33, v.JobWeight, 0.001)

	l := e.claimOne(w)
	require.Equal(e, j.ID, l.Job.ID)
	e.advance(e.T, 4*time.Second)
	e.renew(w, pipeline.Renewal{Ref: l.Ref, Fraction: 0.5})

	v = e.pool()
	require.Equal(e, 1, v.Waiting.Encodes)
	require.Equal(e, 1, v.Running.Encodes)
	require.InDelta(e, 5, v.Running.EncodeWeight, 0.001)
	require.InDelta(e, 5, v.Done, 0.001)
	require.InDelta(e, 4, v.Took.Seconds(), 0.5)
}

func poolSettings(e *env) {
	limit, idle, regions := 7, time.Minute, []string{"fra", "iad"}
	change := pipeline.PoolChange{Limit: &limit, Idle: &idle, Regions: &regions}
	apply := func(c pipeline.PoolChange, version int64) bool {
		ok, err := e.store.ChangePool(e.ctx(), c, version)
		require.NoError(e, err)

		return ok
	}
	require.True(e, apply(change, 0))
	require.True(e, apply(change, 0), "a replay")

	v := e.pool()
	require.Equal(e, change, v.Change)
	require.EqualValues(e, 1, v.Version)

	require.False(e, apply(pipeline.PoolChange{}, 0), "of an older version")
	require.True(e, apply(pipeline.PoolChange{}, 1))
	require.Equal(e, pipeline.PoolChange{}, e.pool().Change)
}

func poolChangeWakes(e *env) {
	wakes, err := e.store.Wakes(e.ctx())
	require.NoError(e, err)

	limit := 3
	ok, err := e.store.ChangePool(e.ctx(), pipeline.PoolChange{Limit: &limit}, 0)
	require.NoError(e, err)
	require.True(e, ok)

	for wake := range wakes {
		if wake == pipeline.WakePool {
			return
		}
	}
}

func poolReport(e *env) {
	report := pipeline.PoolReport{
		Desired: 4, HoldReason: "No.", WaitingWork: time.Minute, Speed: 1.5, JobWeight: 60,
		Problems: []pipeline.Problem{{
			Kind: pipeline.ProblemQuota, Message: "Too much.", Region: "fra", MachineID: "m1", Times: 2,
			Since: time.UnixMilli(1000).UTC(), Last: time.UnixMilli(2000).UTC(), NextTry: time.UnixMilli(3000).UTC(),
		}},
	}
	require.NoError(e, e.store.ReportPool(e.ctx(), report, 0))
	require.Equal(e, report, e.pool().Report)
}

// Turns come as many at once as may, then one at a time; one that would come
// too late isn't taken.
func poolTurns(e *env) {
	pace := pipeline.Pace{Every: time.Hour, Burst: 2}
	turn := func(name string, most time.Duration) (time.Duration, bool) {
		wait, taken, err := e.store.TakeTurn(e.ctx(), name, pace, most)
		require.NoError(e, err)

		return wait, taken
	}
	comes := func(name string, in time.Duration) {
		e.Helper()

		wait, taken := turn(name, 24*time.Hour)
		require.True(e, taken)
		require.InDelta(e, in.Minutes(), wait.Minutes(), 1)
	}

	comes("a", 0)
	comes("a", 0)

	_, taken := turn("a", time.Minute)
	require.False(e, taken)
	comes("a", time.Hour)
	comes("a", 2*time.Hour)
	comes("b", 0)

	e.advance(e.T, 2*time.Hour+time.Minute)
	comes("a", 59*time.Minute)
	e.advance(e.T, 24*time.Hour)
	comes("a", 0)
	comes("a", 0)
	comes("a", time.Hour)
}
