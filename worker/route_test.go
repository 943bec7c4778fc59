package worker

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// TestWelcomeIsNoSuccess guarantees that a worker whose sessions end right after
// each Welcome doesn't storm its control plane, and that it is back at once after
// a session that lived.
func TestWelcomeIsNoSuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(cfg *Config) { cfg.Transport = TransportStream })

		var s *planeStream

		for start := time.Now(); time.Since(start) < time.Minute; {
			s, _ = b.plane.welcomed(t, &tcoderv1.Welcome{})
			s.cut(errors.New("broken"))
		}

		require.Less(t, len(b.plane.dials()), 30, "with pauses that grow")

		s, _ = b.plane.welcomed(t, &tcoderv1.Welcome{})
		first(t, s, getHeartbeat)

		start := time.Now()

		s.cut(errors.New("crash"))
		b.plane.attached(t)
		require.LessOrEqual(t, time.Since(start), minAttachPause)
	})
}
