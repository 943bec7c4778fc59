package storetest

import (
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

func machineTests() map[string]func(*env) {
	return map[string]func(*env){
		"LimitHolds":                machineLimitHolds,
		"LimitHoldsUnderRaces":      machineLimitHoldsUnderRaces,
		"KeepsEveryField":           machineKeepsEveryField,
		"AttachMakesItRun":          machineAttachMakesItRun,
		"AttachBeforeTheCreateDone": machineAttachBeforeCreated,
		"UnknownIsNotFound":         machineUnknownIsNotFound,
		"LoseReleasesItsLeases":     machineLose,
		"AttachIsOfOneMachine":      machineAttachIsOfOneMachine,
	}
}

func (e *env) reserve(id string, limit int) bool {
	e.Helper()

	ok, err := e.store.ReserveMachine(e.ctx(), pipeline.Machine{ID: id, Provider: "process"}, limit, 0)
	require.NoError(e, err)

	return ok
}

// move moves machine m1.
func (e *env) move(by pipeline.MachineTransition) {
	e.Helper()

	_, err := e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: "m1", By: by})
	require.NoError(e, err)
}

func machineLimitHolds(e *env) {
	require.True(e, e.reserve("m1", 2))
	require.True(e, e.reserve("m1", 2), "a replay")
	require.True(e, e.reserve("m2", 2))
	require.False(e, e.reserve("m3", 2))
	require.True(e, e.reserve("m1", 0), "it is there already")

	e.move(pipeline.MachineBreak)
	require.False(e, e.reserve("m3", 2), "a failed machine may still be there")
	e.move(pipeline.MachineDestroy)
	require.True(e, e.reserve("m3", 2))

	machines, err := e.store.ListMachines(e.ctx())
	require.NoError(e, err)
	require.Len(e, machines, 2)
	require.Equal(e, "m2", machines[0].ID)
}

func machineLimitHoldsUnderRaces(e *env) {
	const limit = 5

	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		granted int
	)

	for range 40 {
		wg.Go(func() {
			ok, err := e.store.ReserveMachine(e.ctx(), pipeline.Machine{ID: newID()}, limit, 0)
			if err == nil && ok {
				mu.Lock()
				granted++
				mu.Unlock()
			}
		})
	}

	wg.Wait()
	require.Equal(e, limit, granted)

	machines, err := e.store.ListMachines(e.ctx())
	require.NoError(e, err)
	require.Len(e, machines, limit)
}

func machineKeepsEveryField(e *env) {
	ok, err := e.store.ReserveMachine(e.ctx(), pipeline.Machine{ID: "m1", Provider: "fly"}, 1, 0)
	require.NoError(e, err)
	require.True(e, ok)

	e.advance(e.T, time.Second)

	m, err := e.store.MoveMachine(e.ctx(), pipeline.MachineMove{
		ID: "m1", By: pipeline.MachineCreated, ProviderID: "provider-1", Region: "fra",
	})
	require.NoError(e, err)

	want := pipeline.Machine{
		ID: "m1", State: pipeline.MachineStarting, Provider: "fly", ProviderID: "provider-1", Region: "fra",
		Created: m.Created, Changed: m.Changed,
	}
	require.Equal(e, want, m)
	require.True(e, m.Changed.After(m.Created))

	f := &pipeline.Failure{Reason: pipeline.ReasonMachineFault, Message: "no capacity"}
	m, err = e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: "m1", By: pipeline.MachineBreak, Failure: f})
	require.NoError(e, err)
	require.Equal(e, pipeline.MachineFailed, m.State)
	require.Equal(e, f, m.Failure)
	require.Equal(e, "provider-1", m.ProviderID)

	machines, err := e.store.ListMachines(e.ctx())
	require.NoError(e, err)
	require.Equal(e, []pipeline.Machine{m}, machines)

	got, err := e.store.GetMachine(e.ctx(), "m1")
	require.NoError(e, err)
	require.Equal(e, m, got)
}

func (e *env) machineState(id string) pipeline.MachineState {
	e.Helper()

	machines, err := e.store.ListMachines(e.ctx())
	require.NoError(e, err)

	for _, m := range machines {
		if m.ID == id {
			return m.State
		}
	}

	return ""
}

func machineAttachMakesItRun(e *env) {
	e.reserve("m1", 1)
	e.move(pipeline.MachineCreated)
	_, _, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: "w1", MachineID: "m1"}, leaseFor)
	require.NoError(e, err)
	require.Equal(e, pipeline.MachineRunning, e.machineState("m1"))

	e.move(pipeline.MachineDrain)
	_, _, err = e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: "w1", MachineID: "m1"}, leaseFor)
	require.NoError(e, err)
	require.Equal(e, pipeline.MachineDraining, e.machineState("m1"), "a reattach doesn't undo a drain")

	_, _, err = e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: "w2", MachineID: "unknown"}, leaseFor)
	require.NoError(e, err)
	require.Empty(e, e.machineState("unknown"))
}

// A worker can be here before the answer of the provider is.
func machineAttachBeforeCreated(e *env) {
	e.reserve("m1", 1)
	_, _, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: "w1", MachineID: "m1"}, leaseFor)
	require.NoError(e, err)
	require.Equal(e, pipeline.MachineRunning, e.machineState("m1"))

	m, err := e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: "m1", By: pipeline.MachineCreated, ProviderID: "provider-1"})
	require.NoError(e, err)
	require.Equal(e, pipeline.MachineRunning, m.State)
	require.Equal(e, "provider-1", m.ProviderID)
}

func machineUnknownIsNotFound(e *env) {
	_, err := e.store.MoveMachine(e.ctx(), pipeline.MachineMove{ID: "m1", By: pipeline.MachineStop})
	e.refused(pipeline.ReasonMachineNotFound, err)
	_, err = e.store.GetMachine(e.ctx(), "m1")
	e.refused(pipeline.ReasonMachineNotFound, err)
	require.NoError(e, e.store.LoseMachine(e.ctx(), "m1", 0))
}

// What ran on a machine that is gone is ready at once, without a loss.
func machineLose(e *env) {
	e.reserve("m1", 1)

	session, _, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: "w1", MachineID: "m1"}, leaseFor)
	require.NoError(e, err)

	w, other := worker{"w1", session}, e.attach("w2")
	j, kept := e.job(), e.job()
	l := e.claimOne(w)
	e.claimOne(other)

	for range 2 {
		require.NoError(e, e.store.LoseMachine(e.ctx(), "m1", 0))
	}

	task := e.task(j.ID, 0)
	require.Equal(e, pipeline.TaskReady, task.State)
	require.Equal(e, pipeline.OutcomeReleased, task.Attempts[0].Outcome)
	require.False(e, task.Attempts[0].Charged)
	require.Equal(e, pipeline.TaskLeased, e.task(kept.ID, 0).State)
	require.Len(e, e.workers(), 1)
	require.Equal(e, []pipeline.LeaseRef{l.Ref}, e.renew(w, pipeline.Renewal{Ref: l.Ref}))
}

// Nobody takes the place of a worker of another machine, or of none.
func machineAttachIsOfOneMachine(e *env) {
	for _, is := range []string{"m1", ""} {
		id := "w" + is
		mine := pipeline.Worker{ID: id, MachineID: is}
		session, _, err := e.store.AttachWorker(e.ctx(), mine, leaseFor)
		require.NoError(e, err)
		e.job()

		l := e.claimOne(worker{id, session})

		for _, other := range []string{"m1", "m2", ""} {
			if other != is {
				_, _, err = e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: id, MachineID: other, Held: []pipeline.LeaseRef{l.Ref}}, leaseFor)
				e.refused(pipeline.ReasonPermissionDenied, err)
			}
		}

		require.Empty(e, e.renew(worker{id, session}, pipeline.Renewal{Ref: l.Ref}))
		require.NoError(e, e.store.DetachWorker(e.ctx(), id, session, false), "its session is the newest")

		mine.Held = []pipeline.LeaseRef{l.Ref}
		_, kept, err := e.store.AttachWorker(e.ctx(), mine, leaseFor)
		require.NoError(e, err)
		require.Len(e, kept, 1)
	}
}
