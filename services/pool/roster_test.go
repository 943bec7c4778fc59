package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// listed counts how often the workers are listed.
type listed struct {
	Store

	times int
	err   error
}

func (l *listed) ListWorkers(context.Context) ([]pipeline.Worker, error) {
	l.times++
	return []pipeline.Worker{{ID: "w"}}, l.err
}

// TestRoster: the workers are listed once a second at most, and again after one
// came or went, or the list couldn't be read.
func TestRoster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var r roster
		store := &listed{err: errors.New("away")}
		_, err := r.recent(t.Context(), store)
		require.ErrorIs(t, err, store.err)
		store.err = nil
		for range 3 {
			workers, err := r.recent(t.Context(), store)
			require.NoError(t, err)
			require.Len(t, workers, 1)
		}
		require.Equal(t, 2, store.times)
		r.forget()
		_, err = r.recent(t.Context(), store)
		require.NoError(t, err)
		require.Equal(t, 3, store.times)
		<-time.After(rosterAge)
		_, err = r.recent(t.Context(), store)
		require.NoError(t, err)
		require.Equal(t, 4, store.times)
	})
}
