package autoscale_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestStoreRefusesWrites: a store that answers and takes nothing isn't asked
// without a pause.
func TestStoreRefusesWrites(t *testing.T) {
	t.Parallel()
	g := newRig()
	g.submit(t, 5)
	r := g.reconciler(g.lead(t, "a"), 3)
	g.store.refuses = &pipeline.Error{Reason: pipeline.ReasonStateUnavailable, Message: "MISCONF"}
	for range 100 {
		r.Step(t.Context())
	}
	require.Positive(t, g.store.refused)
	require.LessOrEqual(t, g.store.refused, 3)
}

// TestDrainIsFinished: a drain that was cut off is gone on with.
func TestDrainIsFinished(t *testing.T) {
	t.Parallel()
	g := newRig()
	g.submit(t, 2)
	for _, id := range []string{"a", "b"} {
		_, err := g.store.ReserveMachine(t.Context(), pipeline.Machine{ID: id}, 2, 0)
		require.NoError(t, err)
		_, err = g.provider.Create(t.Context(), machine.CreateRequest{ID: id})
		require.NoError(t, err)
		_, err = g.store.MoveMachine(t.Context(), pipeline.MachineMove{ID: id, By: pipeline.MachineCreated, ProviderID: id})
		require.NoError(t, err)
		session, _, err := g.store.AttachWorker(t.Context(), pipeline.Worker{ID: "w-" + id, MachineID: id, Slots: 1}, time.Hour)
		require.NoError(t, err)
		claimed, err := g.store.ClaimTasks(t.Context(), pipeline.Claim{
			RequestID: id, WorkerID: "w-" + id, Session: session, Max: 1, Lease: time.Hour,
		})
		require.NoError(t, err)
		require.Len(t, claimed.Leases, 1)
	}
	g.now = g.now.Add(10 * time.Second) // they run
	r := g.reconciler(g.lead(t, "a"), 1)
	g.store.refuses = errors.New("cut")
	for range 20 {
		r.Step(t.Context())
		if g.store.refused > 0 {
			g.store.refuses = nil
		}
		g.now = g.now.Add(15 * time.Second)
		g.lead(t, "a")
	}
	require.Equal(t, 1, g.store.refused)
	require.Equal(t, 1, g.store.drained)
}
