package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func faultTests() map[string]func(*env) {
	return map[string]func(*env){
		"InputKillsAtOnce":          faultInput,
		"MachineIsNotCharged":       faultMachine,
		"UnknownBacksOff":           faultUnknown,
		"JitterSpreads":             faultJitter,
		"FailuresAreBounded":        faultFailuresAreBounded,
		"MachineFaultsRest":         faultMachineFaultsRest,
		"MachineFaultsAreBounded":   faultMachineFaultsAreBounded,
		"MissingEncodersAreNot":     faultMissingEncodersAreNot,
		"LostMachinesAreBounded":    faultLostMachinesAreBounded,
		"ChargeResetsTheUncharged":  faultChargeResets,
		"ReleasesAreNot":            faultReleasesAreNot,
		"LostIsRequeuedAtOnce":      faultLost,
		"LostTooOftenIsQuarantined": faultQuarantine,
		"LostAndBackIsNoLoss":       faultLostAndBack,
		"LostAndBackHasAnEnd":       faultLostAndBackForEver,
	}
}

// The input's fault fails the job at the first attempt.
func faultInput(e *env) {
	w := e.attach("w1")
	j := e.failed(w)
	require.Equal(e, pipeline.JobFailed, j.State)
	require.Equal(e, &pipeline.Failure{Reason: pipeline.ReasonInputNotMedia, Message: "it went wrong: 100 %"}, j.Failure)
	require.Equal(e, pipeline.TaskDead, j.Tasks[0].State)
	require.True(e, j.Tasks[0].Attempts[0].Charged)
	require.Equal(e, []pipeline.EventType{pipeline.EventTaskDead, pipeline.EventFailed}, e.events(j.ID)[4:])
}

// The machine's fault puts the task back at once.
func faultMachine(e *env) {
	w := e.attach("w1")
	j := e.job()
	l := e.claimOne(w)
	e.fail(w, l.Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)

	task := e.task(j.ID, 0)
	require.Equal(e, pipeline.TaskReady, task.State)
	require.Equal(e, pipeline.OutcomeFailed, task.Attempts[0].Outcome)
	require.Equal(e, pipeline.ReasonMachineFault, task.Attempts[0].Failure.Reason)
	require.False(e, task.Attempts[0].Charged)
	require.Equal(e, 2, e.claimOne(w).Ref.Attempt)
}

// An unknown fault is tried again after a pause that doubles up to its bound.
func faultUnknown(e *env) {
	w := e.attach("w1")
	j := e.job()
	p := pipeline.RetryPolicy{MaxFailures: 10, MaxLosses: 3, Backoff: time.Second, MaxBackoff: 5 * time.Second}

	for _, seconds := range []int{1, 2, 4, 5, 5} {
		want := time.Duration(seconds) * time.Second
		l := e.claimOne(w)
		v, err := e.store.FailTask(e.ctx(), pipeline.TaskFault{
			Ref: l.Ref, WorkerID: w.id, Class: pipeline.FaultUnknown, Retry: p,
			Failure: pipeline.Failure{Reason: pipeline.ReasonEncodeFailed, Message: "m"},
		})
		require.NoError(e, err)
		require.Equal(e, pipeline.VerdictAccepted, v)

		task := e.task(j.ID, 0)
		attempt := task.Attempts[len(task.Attempts)-1]
		require.Equal(e, pipeline.TaskDelayed, task.State)
		require.True(e, attempt.Charged)
		require.WithinDuration(e, attempt.Ended.Add(want), task.NotBefore, 0)

		e.sweep()
		require.Empty(e, e.claim(w, 1))
		e.advance(e.T, want-100*time.Millisecond)
		require.Zero(e, e.sweep().Woken)
		require.Empty(e, e.claim(w, 1))
		e.advance(e.T, 100*time.Millisecond)
		require.Equal(e, 1, e.sweep().Woken)
		require.True(e, e.task(j.ID, 0).NotBefore.IsZero())
	}
}

// Jitter moves the pause by up to its share, both ways.
func faultJitter(e *env) {
	w := e.attach("w1")
	p := policy()
	p.Jitter, p.Backoff = 0.2, 10*time.Second
	seen := map[time.Duration]bool{}

	for range 8 {
		j := e.job()
		_, err := e.store.FailTask(e.ctx(), pipeline.TaskFault{
			Ref: e.claimOne(w).Ref, WorkerID: w.id, Class: pipeline.FaultUnknown, Retry: p,
			Failure: pipeline.Failure{Reason: pipeline.ReasonEncodeFailed, Message: "m"},
		})
		require.NoError(e, err)

		task := e.task(j.ID, 0)
		pause := task.NotBefore.Sub(task.Attempts[0].Ended)
		require.InDelta(e, 10, pause.Seconds(), 2)

		seen[pause] = true
	}

	require.Greater(e, len(seen), 1)
}

func faultFailuresAreBounded(e *env) {
	w := e.attach("w1")
	j := e.job()

	for range policy().MaxFailures {
		e.fail(w, e.claimOne(w).Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)
		e.pass(time.Minute)
	}

	got := e.get(j.ID)
	require.Equal(e, pipeline.JobFailed, got.State)
	require.Equal(e, pipeline.ReasonEncodeFailed, got.Failure.Reason)
	require.Equal(e, pipeline.TaskDead, got.Tasks[0].State)
	require.Empty(e, e.claim(w, 1))
}

// One broken machine that takes every task at once, and fails it at once,
// leaves the others the time to take it.
func faultMachineFaultsRest(e *env) {
	w := e.attach("w1")
	j := e.job()
	e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)

	for _, seconds := range []int{1, 2, 4} {
		want := time.Duration(seconds) * time.Second
		e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)

		task := e.task(j.ID, 0)
		attempt := task.Attempts[len(task.Attempts)-1]
		require.Equal(e, pipeline.TaskDelayed, task.State)
		require.False(e, attempt.Charged)
		require.WithinDuration(e, attempt.Ended.Add(want), task.NotBefore, 0)
		require.Empty(e, e.claim(w, 1))
		require.Equal(e, 1, e.pass(want).Woken)
	}
}

// A task that finds no machine that works doesn't go round for ever.
func faultMachineFaultsAreBounded(e *env) {
	w := e.attach("w1")
	j := e.job()

	for range 9 {
		e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)
		e.pass(time.Minute)
		require.Equal(e, pipeline.TaskReady, e.task(j.ID, 0).State)
	}

	e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonTransferFailed)

	got := e.get(j.ID)
	require.Equal(e, pipeline.JobFailed, got.State)
	require.Equal(e, pipeline.ReasonTransferFailed, got.Failure.Reason)
	require.Equal(e, pipeline.TaskDead, got.Tasks[0].State)
}

// A task that some worker has the encoder for waits for that, however often the
// others take it; that is no machine's fault.
func faultMissingEncodersAreNot(e *env) {
	w := e.attach("w1")
	j := e.job()
	e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonEncoderMissing)
	require.Equal(e, pipeline.TaskReady, e.task(j.ID, 0).State, "another one may have it at once")

	for range 12 {
		e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonEncoderMissing)
		require.Equal(e, pipeline.TaskDelayed, e.task(j.ID, 0).State)
		require.Equal(e, 1, e.pass(4*time.Second).Woken)
	}

	for range 8 {
		require.Equal(e, pipeline.TaskReady, e.task(j.ID, 0).State)
		e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)
		e.pass(time.Minute)
	}

	e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)
	require.Equal(e, pipeline.JobFailed, e.get(j.ID).State)
}

// A task that takes down one machine after the other doesn't go round for ever.
func faultLostMachinesAreBounded(e *env) {
	j := e.job()

	for range 10 {
		require.Equal(e, pipeline.TaskReady, e.task(j.ID, 0).State)

		session, _, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: "w1", MachineID: "m1"}, leaseFor)
		require.NoError(e, err)
		e.claimOne(worker{"w1", session})
		require.NoError(e, e.store.LoseMachine(e.ctx(), "m1", 0))
	}

	got := e.get(j.ID)
	require.Equal(e, pipeline.JobFailed, got.State)
	require.Equal(e, pipeline.ReasonWorkerLost, got.Failure.Reason)
}

// Drains and assignments that were lost on the way are nobody's fault: a task
// lives through any number of them, and they don't count with those that are.
func faultReleasesAreNot(e *env) {
	w := e.attach("w1")
	j := e.job()

	for range 9 {
		e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)
		e.pass(time.Minute)
	}

	for range 20 {
		require.Equal(e, pipeline.VerdictAccepted, e.release(w, e.claimOne(w).Ref))
		e.claimOne(w)

		w = e.attach("w1") // and doesn't know of it
	}

	require.Equal(e, pipeline.TaskReady, e.task(j.ID, 0).State)
	e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)
	require.Equal(e, pipeline.TaskDead, e.task(j.ID, 0).State)
}

func faultChargeResets(e *env) {
	w := e.attach("w1")
	j := e.job()

	for range 2 {
		for range 9 {
			e.fail(w, e.claimOne(w).Ref, pipeline.FaultMachine, pipeline.ReasonMachineFault)
			e.pass(time.Minute)
		}

		e.fail(w, e.claimOne(w).Ref, pipeline.FaultUnknown, pipeline.ReasonEncodeFailed)
		e.pass(time.Minute)
	}

	require.Equal(e, pipeline.TaskReady, e.task(j.ID, 0).State)
}

// A task whose lease ran out is ready at once, not charged, with its attempt marked lost.
func faultLost(e *env) {
	w := e.attach("w1")
	j := e.job()
	e.claimOne(w)
	require.Zero(e, e.pass(leaseFor-time.Second).Requeued)
	require.Equal(e, 1, e.pass(time.Second).Requeued)

	task := e.task(j.ID, 0)
	require.Equal(e, pipeline.TaskReady, task.State)
	require.Equal(e, pipeline.OutcomeLost, task.Attempts[0].Outcome)
	require.Equal(e, pipeline.ReasonWorkerLost, task.Attempts[0].Failure.Reason)
	require.False(e, task.Attempts[0].Charged)
	require.Equal(e, pipeline.EventTaskDelayed, e.events(j.ID)[4])
}

// A task that takes down one worker after the other is given to no more.
func faultQuarantine(e *env) {
	j := e.job()

	for i := range policy().MaxLosses {
		w := e.attach([]string{"w1", "w2"}[i])
		e.claimOne(w)

		swept := e.pass(leaseFor + time.Second)
		require.Equal(e, i == 1, swept.Dead == 1)
	}

	got := e.get(j.ID)
	require.Equal(e, pipeline.JobFailed, got.State)
	require.Equal(e, pipeline.ReasonQuarantined, got.Failure.Reason)

	for _, name := range []string{"w1", "w2"} {
		require.Contains(e, got.Failure.Message, name)
	}

	require.Equal(e, pipeline.TaskDead, got.Tasks[0].State)
}

// A worker that comes back with what it lost was away, and not taken down.
func faultLostAndBack(e *env) {
	j := e.job()
	lose := func(id string) pipeline.LeaseRef {
		e.Helper()

		l := e.claimOne(e.attach(id))
		e.pass(leaseFor + time.Second)

		return l.Ref
	}
	first := lose("w1")

	e.attach("w2", first) // it isn't that one's
	require.Equal(e, pipeline.OutcomeLost, e.task(j.ID, 0).Attempts[0].Outcome)

	for range 2 {
		e.attach("w1", first, first)
	}

	got := e.task(j.ID, 0)
	require.Equal(e, pipeline.OutcomeReleased, got.Attempts[0].Outcome)
	require.Equal(e, pipeline.ReasonWorkerLost, got.Attempts[0].Failure.Reason)
	require.False(e, got.Attempts[0].Charged)
	require.Equal(e, pipeline.TaskReady, got.State)

	lose("w2")
	require.Equal(e, pipeline.TaskReady, e.task(j.ID, 0).State)
	lose("w3")

	failure := e.get(j.ID).Failure
	require.Equal(e, pipeline.ReasonQuarantined, failure.Reason)
	require.Contains(e, failure.Message, "with 2 workers (w2, w3)")
}

// A worker that is away each time it has the task is given it so often, and no more.
func faultLostAndBackForEver(e *env) {
	j := e.job()
	w := e.attach("w1")
	times := 0

	for ; e.get(j.ID).Failure == nil; times++ {
		ref := e.claimOne(w).Ref
		e.pass(leaseFor + time.Second)

		w = e.attach("w1", ref)
	}

	require.Equal(e, pipeline.ReasonQuarantined, e.get(j.ID).Failure.Reason)
	require.Equal(e, 11, times, "nine faults of its machine, and two losses")
}
