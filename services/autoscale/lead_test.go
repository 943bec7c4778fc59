package autoscale_test

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/scripted"
	"github.com/tcoder-dev/tcoder/internal/memstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/autoscale"
)

// counted counts what a reconciler asks of its store, which may refuse to write.
type counted struct {
	*memstore.Store

	mu      sync.Mutex
	calls   int
	refuses error
	refused int
	drained int
}

func (c *counted) ReserveMachine(ctx context.Context, m pipeline.Machine, limit int, term int64) (bool, error) {
	if err := c.refusal(); err != nil {
		return false, err
	}
	return c.Store.ReserveMachine(ctx, m, limit, term)
}

func (c *counted) DrainWorker(ctx context.Context, id string) (pipeline.Worker, error) {
	if err := c.refusal(); err != nil {
		return pipeline.Worker{}, err
	}
	c.mu.Lock()
	c.drained++
	c.mu.Unlock()
	return c.Store.DrainWorker(ctx, id)
}

func (c *counted) refusal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuses != nil {
		c.refused++
	}
	return c.refuses
}

func (c *counted) ReadPool(ctx context.Context) (pipeline.PoolView, error) {
	c.mu.Lock()
	c.calls++
	c.mu.Unlock()
	return c.Store.ReadPool(ctx)
}

func (c *counted) ReportPool(ctx context.Context, r pipeline.PoolReport, term int64) error {
	c.mu.Lock()
	c.calls++
	c.mu.Unlock()
	return c.Store.ReportPool(ctx, r, term)
}

// rig is a pool in fake time whose reconcilers step by hand.
type rig struct {
	now      time.Time
	store    *counted
	provider *scripted.Provider
	made     int
}

func newRig() *rig {
	g := &rig{now: time.Unix(1_700_000_000, 0)}
	clock := func() time.Time { return g.now }
	g.store = &counted{Store: memstore.New(memstore.Config{Clock: clock})}
	cfg := scripted.Config{Now: clock, Boot: func(int, bool) scripted.Boot { return scripted.Boot{Latency: 5 * time.Second} }}
	g.provider = scripted.New(cfg)
	return g
}

// reconciler is one replica's, which believes to lead by a term.
func (g *rig) reconciler(term int64, limit int) *autoscale.Reconciler {
	return autoscale.New(autoscale.Config{Settings: pipeline.PoolSettings{Limit: limit, KeepStopped: limit}, ActionsAtOnce: 1}, autoscale.Deps{
		Store: g.store, Provider: g.provider, Term: func() int64 { return term }, Now: func() time.Time { return g.now },
		NewID: func() string {
			g.made++
			return "m" + strconv.Itoa(g.made)
		},
		Log: slog.New(slog.DiscardHandler),
	})
}

func (g *rig) lead(t *testing.T, name string) int64 {
	t.Helper()
	swept, err := g.store.Sweep(t.Context(), pipeline.SweepRequest{Replica: name, LeaderTTL: 15 * time.Second, Lease: time.Hour})
	require.NoError(t, err)
	require.True(t, swept.Leader)
	return swept.Term
}

func (g *rig) submit(t *testing.T, jobs int) {
	t.Helper()
	for range jobs {
		g.made++
		_, err := g.store.CreateJob(t.Context(), pipeline.Job{ID: "j" + strconv.Itoa(g.made), Project: "default"},
			pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
		require.NoError(t, err)
	}
}

// stopped makes a machine that has run, and stopped by itself.
func (g *rig) stopped(t *testing.T) string {
	t.Helper()
	g.made++
	id := "old" + strconv.Itoa(g.made)
	_, err := g.store.ReserveMachine(t.Context(), pipeline.Machine{ID: id}, g.made, 0)
	require.NoError(t, err)
	_, err = g.provider.Create(t.Context(), machine.CreateRequest{ID: id})
	require.NoError(t, err)
	g.now = g.now.Add(10 * time.Second)
	require.True(t, g.provider.End(id, false))
	for _, by := range []pipeline.MachineTransition{pipeline.MachineCreated, pipeline.MachineAttach, pipeline.MachineExit} {
		_, err = g.store.MoveMachine(t.Context(), pipeline.MachineMove{ID: id, By: by, ProviderID: id})
		require.NoError(t, err)
	}
	return id
}

// settle steps until there is nothing to do at this moment.
func (g *rig) settle(t *testing.T, r *autoscale.Reconciler) time.Duration {
	t.Helper()
	for range 100 {
		if pause := r.Step(t.Context()); pause > 0 {
			return pause
		}
	}
	require.Fail(t, "it never comes to rest")
	return 0
}

// TestPausedLeader: a leader that was paused while another came to lead makes,
// starts and destroys nothing when it goes on, though it doesn't know yet.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	g := newRig()
	paused := g.reconciler(g.lead(t, "a"), 3)
	require.Positive(t, paused.Step(t.Context()))
	g.now = g.now.Add(time.Minute)
	leader := g.reconciler(g.lead(t, "b"), 3)
	g.submit(t, 20)
	g.settle(t, paused)
	require.Zero(t, g.provider.Totals().Made)
	g.settle(t, leader)
	require.Equal(t, 3, g.provider.Totals().Made)
	g.settle(t, paused)
	require.Equal(t, 3, g.provider.Totals().Most)
	view, err := g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	require.Len(t, view.Machines, 3)
	require.Equal(t, 3, view.Report.Desired)
}

// TestPausedReservation: a leader that is paused after it has reserved a machine
// doesn't make it when it goes on: the next leader may have made and ended it.
func TestPausedReservation(t *testing.T) {
	t.Parallel()
	g := newRig()
	term := g.lead(t, "a")
	led := term
	r := autoscale.New(autoscale.Config{
		Settings: pipeline.PoolSettings{Limit: 1},
		Env: func(string) map[string]string { // asked for between the two
			led = 0
			return nil
		},
	}, autoscale.Deps{
		Store: g.store, Provider: g.provider, Term: func() int64 { return led }, Now: func() time.Time { return g.now },
		Log: slog.New(slog.DiscardHandler),
	})
	g.submit(t, 1)
	r.Step(t.Context())
	require.Zero(t, g.provider.Totals().Made)
	view, err := g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	require.Len(t, view.Machines, 1) // counts until the next leader has looked
	next := g.reconciler(term, 1)
	g.settle(t, next)
	require.Equal(t, 1, g.provider.Totals().Made)
}

// TestIdleHour: a pool without work, and without machines but stopped ones,
// asks the store ten times an hour, which with the sweeper's 240 ticks and the
// 30 questions whether the subscription lives is below 300; and it runs nothing.
func TestIdleHour(t *testing.T) {
	t.Parallel()
	for name, stopped := range map[string]int{"no machine": 0, "three that have stopped": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig()
			for range stopped {
				g.stopped(t)
			}
			r := g.reconciler(g.lead(t, "a"), 3)
			g.settle(t, r)
			g.store.calls = 0
			ran := g.provider.Totals().Ran
			for end := g.now.Add(time.Hour); g.now.Before(end); {
				g.now = g.now.Add(g.settle(t, r))
			}
			require.LessOrEqual(t, g.store.calls, 10)
			require.Equal(t, stopped, g.provider.Totals().Made)
			require.Equal(t, ran, g.provider.Totals().Ran)
		})
	}
}

// TestStopsAreSeen: a machine that comes after a long time without any, and
// stops by itself, is seen to have stopped within seconds: it takes no place
// away from what comes next.
func TestStopsAreSeen(t *testing.T) {
	t.Parallel()
	g := newRig()
	r := g.reconciler(g.lead(t, "a"), 1)
	g.settle(t, r)
	g.submit(t, 1)
	g.settle(t, r)
	view, err := g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	require.Len(t, view.Machines, 1)
	id := view.Machines[0].ID
	pass := func(d time.Duration) {
		for end := g.now.Add(d); g.now.Before(end); {
			g.now = g.now.Add(min(g.settle(t, r), end.Sub(g.now)))
		}
	}
	pass(10 * time.Second)
	session, _, err := g.store.AttachWorker(t.Context(), pipeline.Worker{ID: "w", MachineID: id, Slots: 1}, time.Minute)
	require.NoError(t, err)
	pass(10 * time.Second)
	require.NoError(t, g.store.DetachWorker(t.Context(), "w", session, true))
	require.True(t, g.provider.End(id, false))
	pass(15 * time.Second)
	view, err = g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	for _, m := range view.Machines {
		require.NotEqual(t, pipeline.MachineRunning, m.State, "nobody saw that %s stopped", m.ID)
	}
}

// TestProblemsAreTold: each class of failure is told with since when and what
// comes next, keeps growth from trying on in vain, and is forgotten once a
// machine was made.
func TestProblemsAreTold(t *testing.T) {
	t.Parallel()
	for class, want := range map[machine.Class]struct {
		kind pipeline.ProblemKind
		rest time.Duration
	}{
		machine.RateLimited:  {pipeline.ProblemRateLimited, time.Second},
		machine.RegionFull:   {pipeline.ProblemNoCapacity, time.Second},
		machine.Quota:        {pipeline.ProblemQuota, 10 * time.Minute},
		machine.Unauthorized: {pipeline.ProblemUnauthorized, 10 * time.Minute},
		machine.Unclear:      {pipeline.ProblemUnreachable, time.Second},
		machine.Refused:      {pipeline.ProblemRefused, time.Second},
	} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			g := newRig()
			r := g.reconciler(g.lead(t, "a"), 1)
			g.settle(t, r)
			g.provider.Inject(scripted.Fault{Op: scripted.Create, Err: &machine.Error{Class: class, Message: "No."}})
			g.submit(t, 1)
			g.settle(t, r)
			view, err := g.store.Store.ReadPool(t.Context())
			require.NoError(t, err)
			require.Len(t, view.Report.Problems, 1)
			problem := view.Report.Problems[0]
			require.Equal(t, want.kind, problem.Kind)
			require.Equal(t, "No.", problem.Message)
			require.WithinDuration(t, g.now.Add(want.rest), problem.NextTry, time.Millisecond)
			require.InDelta(t, 1, failures(t, r, "create", class), 0)
			g.settle(t, r)
			require.Zero(t, g.provider.Totals().Made)

			g.now = g.now.Add(want.rest + time.Second)
			g.settle(t, r)
			require.Equal(t, 1, g.provider.Totals().Made)
			g.settle(t, r)
			view, err = g.store.Store.ReadPool(t.Context())
			require.NoError(t, err)
			require.Empty(t, view.Report.Problems)
		})
	}
}

// TestLostThenRefused: a machine whose creation wasn't answered counts as long
// as the list may not show it yet, also if the next try is refused.
func TestLostThenRefused(t *testing.T) {
	t.Parallel()
	const limit = 2
	g := newRig()
	r := g.reconciler(g.lead(t, "a"), limit)
	g.settle(t, r)
	lost := &machine.Error{Class: machine.Unclear, Message: "No answer."}
	full := &machine.Error{Class: machine.RegionFull, Message: "No."}
	g.provider.Inject(scripted.Fault{Op: scripted.Create, Err: lost, Effect: true})
	g.provider.Inject(scripted.Fault{Op: scripted.Create, Err: lost}) // the other one isn't made
	g.provider.Inject(scripted.Fault{Op: scripted.List, Err: lost, Times: 10})
	g.provider.Inject(scripted.Fault{Op: scripted.Create, Err: full, Times: 4})
	g.submit(t, 20)
	machines := func() int {
		view, err := g.store.Store.ReadPool(t.Context())
		require.NoError(t, err)
		return len(view.Machines)
	}
	for end := g.now.Add(90 * time.Second); g.now.Before(end); { // before it is given up for want of a worker
		g.now = g.now.Add(g.settle(t, r))
		require.LessOrEqual(t, g.provider.Totals().Most, limit)
		require.GreaterOrEqual(t, machines(), g.provider.Totals().Most)
	}
	require.Equal(t, limit, machines())
}

// TestLostThenAttached: a machine whose creation wasn't answered, and whose
// worker came before a list showed it, gets its provider's id by the next list.
func TestLostThenAttached(t *testing.T) {
	t.Parallel()
	g := newRig()
	r := g.reconciler(g.lead(t, "a"), 1)
	g.settle(t, r)
	lost := &machine.Error{Class: machine.Unclear, Message: "No answer."}
	g.provider.Inject(scripted.Fault{Op: scripted.Create, Err: lost, Effect: true})
	g.submit(t, 1)
	r.Step(t.Context())
	_, _, err := g.store.AttachWorker(t.Context(), pipeline.Worker{ID: "w", MachineID: "m2", Slots: 1}, time.Minute)
	require.NoError(t, err)
	for end := g.now.Add(20 * time.Second); g.now.Before(end); {
		g.now = g.now.Add(g.settle(t, r))
	}
	view, err := g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	require.Len(t, view.Machines, 1)
	require.Equal(t, pipeline.MachineRunning, view.Machines[0].State)
	require.Equal(t, "m2", view.Machines[0].ProviderID)
}

// TestNeverMade: a machine whose creation was lost and that can't be made any
// more is forgotten once the list had the time to show it.
func TestNeverMade(t *testing.T) {
	t.Parallel()
	g := newRig()
	r := g.reconciler(g.lead(t, "a"), 1)
	g.settle(t, r)
	g.provider.Inject(scripted.Fault{Op: scripted.Create, Err: &machine.Error{Class: machine.Unclear, Message: "No answer."}})
	g.provider.Inject(scripted.Fault{Op: scripted.Create, Err: &machine.Error{Class: machine.Refused, Message: "No."}, Times: 1000})
	g.submit(t, 1)
	g.settle(t, r)
	view, err := g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	require.Len(t, view.Machines, 1)
	first := view.Machines[0].ID
	for end := g.now.Add(5 * time.Minute); g.now.Before(end); {
		g.now = g.now.Add(g.settle(t, r))
	}
	view, err = g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	for _, m := range view.Machines {
		require.NotEqual(t, first, m.ID)
	}
}

// failures is how often a call failed so, by the metrics.
func failures(t *testing.T, r *autoscale.Reconciler, call string, class machine.Class) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.Collector())
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "tcoder_provider_errors_total" && labels["call"] == call && labels["class"] == strings.ToLower(string(class)) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestPassedOver: a region without room costs no time if the next one has
// some, and is told as long as machines come elsewhere.
func TestPassedOver(t *testing.T) {
	t.Parallel()
	g := newRig()
	g.provider = scripted.New(scripted.Config{Now: func() time.Time { return g.now }, Room: map[string]int{"iad": 1}})
	r := g.reconciler(g.lead(t, "a"), 3)
	regions := []string{"iad", "fra"}
	_, err := g.store.ChangePool(t.Context(), pipeline.PoolChange{Regions: &regions}, 0)
	require.NoError(t, err)
	g.submit(t, 20)
	g.settle(t, r)
	require.Equal(t, 3, g.provider.Totals().Made)
	view, err := g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	require.Len(t, view.Report.Problems, 1)
	problem := view.Report.Problems[0]
	require.Equal(t, pipeline.ProblemNoCapacity, problem.Kind)
	require.Equal(t, "iad", problem.Region)
	require.Equal(t, 2, problem.Times)
	require.Contains(t, problem.Message, "iad")
	require.Zero(t, problem.NextTry)
	require.InDelta(t, 2, failures(t, r, "create", machine.RegionFull), 0)
}

// TestFullHost: a stopped machine whose host has no room is replaced at once
// by one elsewhere.
func TestFullHost(t *testing.T) {
	t.Parallel()
	g := newRig()
	r := g.reconciler(g.lead(t, "a"), 1)
	old := g.stopped(t)
	g.provider.Inject(scripted.Fault{Op: scripted.Start, Err: &machine.Error{Class: machine.HostFull, Message: "Full."}})
	g.submit(t, 1)
	g.settle(t, r)
	view, err := g.store.Store.ReadPool(t.Context())
	require.NoError(t, err)
	require.Len(t, view.Machines, 1)
	require.NotEqual(t, old, view.Machines[0].ID)
	require.Equal(t, pipeline.MachineStarting, view.Machines[0].State)
	require.Equal(t, 1, g.provider.Totals().Most)
}

// TestAskedForAtOnce: between a task that becomes ready and the call that makes
// its machine nothing waits for time to pass.
func TestAskedForAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Config{})
		provider := scripted.New(scripted.Config{})
		swept, err := store.Sweep(t.Context(), pipeline.SweepRequest{Replica: "a", LeaderTTL: time.Hour, Lease: time.Hour})
		require.NoError(t, err)
		r := autoscale.New(autoscale.Config{Settings: pipeline.PoolSettings{Limit: 1}}, autoscale.Deps{
			Store: store, Provider: provider, Term: func() int64 { return swept.Term }, Elected: make(chan struct{}),
			Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		began := time.Now()
		_, err = store.CreateJob(t.Context(), pipeline.Job{ID: "j", Project: "default"}, pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 1, provider.Totals().Made)
		require.Zero(t, time.Since(began))
		cancel()
		require.NoError(t, <-done)
	})
}
