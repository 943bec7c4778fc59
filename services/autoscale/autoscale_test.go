package autoscale_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/process"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/services/autoscale"
)

const patience = 15 * time.Second

func TestMain(m *testing.M) { redistest.Main(m) }

// program is a worker's process without the worker: it ends when told by a file.
const program = `while :; do
  [ -e "$DIR/$ID.exit" ] && exit 0
  [ -e "$DIR/$ID.crash" ] && exit 1
  sleep 0.02
done`

// cell is a Redis and a provider of processes.
type cell struct {
	store    *redisstore.Store
	provider *process.Provider
	dir      string
	term     int64
}

func newCell(t *testing.T) *cell {
	t.Helper()
	url, tag := redistest.New(t)
	store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	c := &cell{store: store, dir: t.TempDir()}
	c.provider, err = process.New(process.Config{
		Command: []string{"sh", "-c", program},
		Env:     []string{"PATH=" + os.Getenv("PATH"), "DIR=" + c.dir},
	})
	require.NoError(t, err)
	c.background(t, c.provider.Run)
	return c
}

// background runs a loop until the test ends.
func (c *cell) background(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// lead makes the cell's replica the leader, or finds that it is.
func (c *cell) lead(t *testing.T) int64 {
	t.Helper()
	if c.term == 0 {
		swept, err := c.store.Sweep(t.Context(), pipeline.SweepRequest{Replica: "r", LeaderTTL: time.Hour, Lease: time.Hour})
		require.NoError(t, err)
		require.True(t, swept.Leader)
		c.term = swept.Term
	}
	return c.term
}

// report is what the leader tells.
func (c *cell) report(t *testing.T) pipeline.PoolReport {
	t.Helper()
	view, err := c.store.ReadPool(t.Context())
	require.NoError(t, err)
	return view.Report
}

func (c *cell) reconciler(t *testing.T, edit func(*autoscale.Config, *autoscale.Deps)) {
	t.Helper()
	term := c.lead(t)
	cfg := autoscale.Config{
		Settings: pipeline.PoolSettings{Limit: 2},
		Env:      func(id string) map[string]string { return map[string]string{"ID": id} },
	}
	deps := autoscale.Deps{
		Store: c.store, Provider: c.provider, Term: func() int64 { return term }, Elected: make(chan struct{}),
		Log: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg, &deps)
	}
	r := autoscale.New(cfg, deps)
	c.background(t, r.Run)
}

func (c *cell) submit(t *testing.T) pipeline.Job {
	t.Helper()
	job, err := c.store.CreateJob(t.Context(), pipeline.Job{ID: ulid.Make().String(), Project: "default", Source: pipeline.Source{ObjectKey: "k"}},
		pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	return job
}

func (c *cell) machines(t *testing.T) []pipeline.Machine {
	t.Helper()
	machines, err := c.store.ListMachines(t.Context())
	require.NoError(t, err)
	return machines
}

func (c *cell) instances(t *testing.T) []machine.Instance {
	t.Helper()
	instances, err := c.provider.List(t.Context())
	require.NoError(t, err)
	return instances
}

// machine waits for a machine in a state, other than one.
func (c *cell) machine(t *testing.T, state pipeline.MachineState, other string) string {
	t.Helper()
	var id string
	require.Eventually(t, func() bool {
		for _, m := range c.machines(t) {
			if m.State == state && m.ID != other {
				id = m.ID
			}
		}
		return id != ""
	}, patience, 5*time.Millisecond, "no machine became %s", state)
	return id
}

// attach plays the worker of a machine: it attaches and takes a task.
func (c *cell) attach(t *testing.T, machineID string) pipeline.Lease {
	t.Helper()
	session, _, err := c.store.AttachWorker(t.Context(), pipeline.Worker{ID: "w-" + machineID, MachineID: machineID, Slots: 1}, time.Hour)
	require.NoError(t, err)
	claimed, err := c.store.ClaimTasks(t.Context(), pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: "w-" + machineID, Session: session, Max: 1, Lease: time.Hour,
	})
	require.NoError(t, err)
	require.Len(t, claimed.Leases, 1)
	return claimed.Leases[0]
}

// tell makes the process of a machine end, by exit or crash.
func (c *cell) tell(t *testing.T, id, how string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, id+"."+how), nil, 0o600))
}

// TestLife: a task that nobody can take gets a machine, and a machine whose
// worker left is cleared away.
func TestLife(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.reconciler(t, nil)
	c.submit(t)
	id := c.machine(t, pipeline.MachineStarting, "")
	lease := c.attach(t, id)
	c.machine(t, pipeline.MachineRunning, "")
	verdict, err := c.store.FailTask(t.Context(), pipeline.TaskFault{
		Ref: lease.Ref, WorkerID: "w-" + id, Class: pipeline.FaultInput, Failure: pipeline.Failure{Reason: pipeline.ReasonInputCorrupt, Message: "x"},
	})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, verdict)
	c.tell(t, id, "exit")
	require.Eventually(t, func() bool { return len(c.machines(t)) == 0 && len(c.instances(t)) == 0 }, patience, 5*time.Millisecond)
}

// TestCrash: what a crashed machine held is given to another at once, long
// before its lease ends, and not charged.
func TestCrash(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.reconciler(t, nil)
	job := c.submit(t)
	id := c.machine(t, pipeline.MachineStarting, "")
	require.Equal(t, 1, c.attach(t, id).Ref.Attempt)
	c.tell(t, id, "crash")
	next := c.machine(t, pipeline.MachineStarting, id)
	require.Equal(t, 2, c.attach(t, next).Ref.Attempt)
	got, err := c.store.GetJob(t.Context(), job.ID)
	require.NoError(t, err)
	require.False(t, got.Tasks[0].Attempts[0].Charged)
	require.Len(t, c.machines(t), 1)
}

// TestRestart: after the death of a control plane and all its children, what
// they held is given out again at once by the next one, and nothing is charged.
func TestRestart(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	job := c.submit(t)
	reserved, err := c.store.ReserveMachine(t.Context(), pipeline.Machine{ID: "dead", Provider: "process"}, 2, 0)
	require.NoError(t, err)
	require.True(t, reserved)
	_, err = c.store.MoveMachine(t.Context(), pipeline.MachineMove{ID: "dead", By: pipeline.MachineCreated, ProviderID: "dead"})
	require.NoError(t, err)
	c.attach(t, "dead")
	c.reconciler(t, nil)
	lease := c.attach(t, c.machine(t, pipeline.MachineStarting, "dead"))
	require.Equal(t, 2, lease.Ref.Attempt)
	got, err := c.store.GetJob(t.Context(), job.ID)
	require.NoError(t, err)
	require.False(t, got.Tasks[0].Attempts[0].Charged)
	require.Len(t, c.machines(t), 1)
}

// TestLimit: many tasks, and two replicas that both believe to lead, make no
// more machines than the limit, and none that nobody knows.
func TestLimit(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.reconciler(t, nil)
	c.reconciler(t, nil)
	for range 20 {
		c.submit(t)
		require.LessOrEqual(t, len(c.instances(t)), 2)
	}
	require.Eventually(t, func() bool { return c.report(t).HoldReason == "The pool is at its limit of machines." }, patience, 5*time.Millisecond)
	require.Len(t, c.machines(t), 2)
	require.Len(t, c.instances(t), 2)
}

// brokenProvider refuses to make machines while it is broken.
type brokenProvider struct {
	machine.Provider

	broken atomic.Bool
	tries  atomic.Int32
}

func (p *brokenProvider) Create(ctx context.Context, req machine.CreateRequest) (string, error) {
	p.tries.Add(1)
	if p.broken.Load() {
		return "", machine.ErrCapacity
	}
	return p.Provider.Create(ctx, req)
}

// TestNoCapacity: a provider that refuses is asked again, not at once and not
// for ever in vain; the refused machines leave nothing behind.
func TestNoCapacity(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	provider := &brokenProvider{Provider: c.provider}
	provider.broken.Store(true)
	c.reconciler(t, func(_ *autoscale.Config, d *autoscale.Deps) { d.Provider = provider })
	c.submit(t)
	require.Eventually(t, func() bool { return c.report(t).HoldReason != "" }, patience, 5*time.Millisecond)
	for range 5 {
		c.submit(t) // wakes the loop, which keeps its pause
	}
	require.LessOrEqual(t, provider.tries.Load(), int32(4))
	provider.broken.Store(false)
	c.machine(t, pipeline.MachineStarting, "")
	require.Eventually(t, func() bool { return len(c.instances(t)) == len(c.machines(t)) }, patience, 5*time.Millisecond)
}

// TestCutOff: a creation that a dead control plane began is taken up, and a
// machine that nobody knows is destroyed.
func TestCutOff(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	reserved, err := c.store.ReserveMachine(t.Context(), pipeline.Machine{ID: "begun", Provider: "process"}, 2, 0)
	require.NoError(t, err)
	require.True(t, reserved)
	_, err = c.provider.Create(t.Context(), machine.CreateRequest{ID: "orphan", Env: map[string]string{"ID": "orphan"}})
	require.NoError(t, err)
	c.reconciler(t, nil)
	require.Equal(t, "begun", c.machine(t, pipeline.MachineStarting, ""))
	require.Eventually(t, func() bool {
		instances := c.instances(t)
		return len(instances) == 1 && instances[0].ID == "begun"
	}, patience, 5*time.Millisecond)
}

// TestFollower: a replica that doesn't lead does nothing, and acts at once
// when it comes to lead.
func TestFollower(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	var leads atomic.Bool
	var asked sync.WaitGroup
	asked.Add(1)
	once := sync.OnceFunc(asked.Done)
	elected := make(chan struct{}, 1)
	term := c.lead(t)
	c.reconciler(t, func(_ *autoscale.Config, d *autoscale.Deps) {
		d.Elected = elected
		d.Term = func() int64 {
			once()
			if leads.Load() {
				return term
			}
			return 0
		}
	})
	asked.Wait()
	c.submit(t)
	require.Empty(t, c.machines(t))
	leads.Store(true)
	elected <- struct{}{}
	c.machine(t, pipeline.MachineStarting, "")
}
