package sweep

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestStreamAgain: a stream's duty that comes again while it is at work is done
// once more, at once: what it is for may have been committed since it looked.
func TestStreamAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls, done := make(chan string), make(chan struct{})
		s := New(Config{}, Deps{Log: slog.New(slog.DiscardHandler), Stream: func(_ context.Context, id string) error {
			calls <- id
			<-done
			return nil
		}})
		duty := pipeline.Duty{Kind: pipeline.DutyStream, ID: "j"}
		s.start(t.Context(), duty)
		require.Equal(t, "j", <-calls)
		s.start(t.Context(), duty)
		s.start(t.Context(), duty)
		done <- struct{}{}
		require.Equal(t, "j", <-calls)
		done <- struct{}{}
		s.duties.Wait()
		require.Zero(t, s.waiting())
	})
}
