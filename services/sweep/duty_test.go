package sweep_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/services/sweep"
)

// stuckOutputs is a bucket whose removals hang.
type stuckOutputs struct {
	sweep.Outputs

	stuck *atomic.Int32
}

func (o stuckOutputs) DeletePrefix(ctx context.Context, _ string) error {
	o.stuck.Add(1)
	<-ctx.Done()
	return ctx.Err()
}

// TestEndsDontWait: what a job waits for to end is done though as much as may be
// is being removed.
func TestEndsDontWait(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.upload(t, time.Hour)
	const turns = 8
	for range turns + 1 {
		job := b.submit(t)
		_, err := b.store.CancelJob(t.Context(), job.ID)
		require.NoError(t, err)
		require.NoError(t, b.store.DeleteJob(t.Context(), job.ID))
	}
	var stuck, expired atomic.Int32
	b.sweeper(t, "a", func(d *sweep.Deps) {
		d.Out = stuckOutputs{d.Out, &stuck}
		d.ExpireUpload = func(context.Context, string) error {
			expired.Add(1)
			return nil
		}
	})
	advance := func(d time.Duration) {
		require.NoError(t, b.store.AdvanceClock(t.Context(), d))
		b.submit(t) // something happens, as it does
	}
	advance(10 * time.Minute)
	require.Eventually(t, func() bool { return stuck.Load() == turns }, patience, time.Millisecond)
	advance(time.Hour)
	require.Eventually(t, func() bool { return expired.Load() > 0 }, patience, time.Millisecond)
	require.EqualValues(t, turns, stuck.Load())
}
