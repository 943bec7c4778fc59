package autoscale_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/autoscale"
)

// half is a store of which reads go and writes may not.
type half struct {
	autoscale.Store

	mu              sync.Mutex
	view            pipeline.PoolView
	reserved, drain int
	refuses         error
}

func (h *half) ReadPool(context.Context) (pipeline.PoolView, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.view.Now = time.Now()
	return h.view, nil
}

func (*half) ReportPool(context.Context, pipeline.PoolReport, int64) error { return nil }

func (h *half) ReserveMachine(context.Context, pipeline.Machine, int, int64) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reserved++
	return false, h.refuses
}

func (h *half) MoveMachine(_ context.Context, m pipeline.MachineMove) (pipeline.Machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.view.Machines {
		if h.view.Machines[i].ID == m.ID && m.By == pipeline.MachineDrain {
			h.view.Machines[i].State = pipeline.MachineDraining
		}
	}
	return pipeline.Machine{}, nil
}

func (h *half) DrainWorker(context.Context, string) (pipeline.Worker, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drain++
	return pipeline.Worker{}, h.refuses
}

// there is a provider whose machines are there.
type there struct {
	machine.Provider

	list []machine.Instance
}

func (there) Name() string                                       { return "fly" }
func (there) Changes() <-chan struct{}                           { return nil }
func (p there) List(context.Context) ([]machine.Instance, error) { return p.list, nil }

func (p there) Get(_ context.Context, id string) (machine.Instance, error) {
	for _, m := range p.list {
		if m.ProviderID == id {
			return m, nil
		}
	}
	return machine.Instance{}, errors.New("no such machine")
}

// TestStoreRefusesWrites: a store that answers and takes nothing isn't asked
// without a pause.
func TestStoreRefusesWrites(t *testing.T) {
	t.Parallel()
	store := &half{refuses: &pipeline.Error{Reason: pipeline.ReasonStateUnavailable, Message: "MISCONF"}}
	store.view.Stats.ReadyTasks, store.view.Waiting.Probes = 5, 5
	now := time.Now()
	r := autoscale.New(autoscale.Config{Settings: pipeline.PoolSettings{Limit: 3}}, autoscale.Deps{
		Store: store, Provider: there{}, Now: func() time.Time { return now },
		Term: func() int64 { return 1 }, Log: slog.New(slog.DiscardHandler),
	})
	for range 100 {
		r.Step(t.Context())
	}
	require.Positive(t, store.reserved)
	require.LessOrEqual(t, store.reserved, 3)
}

// TestDrainIsFinished: a drain that was cut off is gone on with.
func TestDrainIsFinished(t *testing.T) {
	t.Parallel()
	now := time.Now()
	store, provider := &half{refuses: errors.New("cut")}, there{}
	for _, id := range []string{"a", "b"} {
		store.view.Machines = append(store.view.Machines, pipeline.Machine{ID: id, ProviderID: id, State: pipeline.MachineRunning, Changed: now})
		store.view.Workers = append(store.view.Workers, pipeline.Worker{
			ID: "w-" + id, MachineID: id, Attached: true, Slots: 1, Held: []pipeline.LeaseRef{{}},
		})
		provider.list = append(provider.list, machine.Instance{ID: id, ProviderID: id, State: machine.Running})
	}
	r := autoscale.New(autoscale.Config{Settings: pipeline.PoolSettings{Limit: 1}}, autoscale.Deps{
		Store: store, Provider: provider, Now: func() time.Time { return now },
		Term: func() int64 { return 1 }, Log: slog.New(slog.DiscardHandler),
	})
	for range 20 {
		r.Step(t.Context())
		if store.drain > 0 {
			store.refuses = nil
		}
		now = now.Add(15 * time.Second)
	}
	require.Equal(t, 2, store.drain)
}
