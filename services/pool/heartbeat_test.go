package pool

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestIdleIsSeen: however long leases are, an idle worker is shown to the
// store often enough to stay in its list.
func TestIdleIsSeen(t *testing.T) {
	t.Parallel()
	for _, lease := range []time.Duration{20 * time.Second, 10 * time.Minute} {
		sess := newSession(pipeline.Worker{ID: "w"}, 1, slog.New(slog.DiscardHandler))
		now := time.Now()
		sess.lastRenewal = now
		cfg := Config{Lease: lease}
		_, _, due := sess.renewals(&tcoderv1.Heartbeat{}, cfg, now.Add(15*time.Second))
		require.False(t, due)
		_, _, due = sess.renewals(&tcoderv1.Heartbeat{}, cfg, now.Add(20*time.Second))
		require.True(t, due)
	}
}
