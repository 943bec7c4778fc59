package pool

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestRenewalsAreRare guarantees that heartbeats cost the store what they are
// worth: those of an idle worker nothing, progress that nobody watches a call
// now and then, and progress that somebody watches enough to look alive.
func TestRenewalsAreRare(t *testing.T) {
	t.Parallel()
	cfg := Config{Lease: 20 * time.Second, ProgressInterval: 200 * time.Millisecond, StoreInterval: 2 * time.Second}
	sess := newSession(pipeline.Worker{ID: "w"}, 1, slog.New(slog.DiscardHandler))
	now := time.Now()
	sess.lastRenewal = now
	due := func(after time.Duration) bool {
		_, _, due := sess.renewals(&tcoderv1.Heartbeat{}, cfg, now.Add(after))
		return due
	}
	require.False(t, due(time.Hour), "idle")

	ref := pipeline.LeaseRef{TaskID: "j-0", Attempt: 1}
	sess.leases[ref] = &lease{ref: ref, started: now, since: now}
	require.False(t, due(1900*time.Millisecond), "nobody watches")
	require.True(t, due(2*time.Second))

	now = now.Add(2 * time.Second)
	sess.setWatched(true)
	require.False(t, due(100*time.Millisecond))
	require.True(t, due(200*time.Millisecond))
}
