package redisstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline/storetest"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// TestConformance guarantees that the store keeps every promise of its port
// on a real Redis.
func TestConformance(t *testing.T) {
	t.Parallel()

	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()

		store := open(t)

		return storetest.Harness{Store: store, Advance: func(t *testing.T, d time.Duration) {
			t.Helper()
			require.NoError(t, store.AdvanceClock(t.Context(), d))
		}}
	})
}

// open returns a store of its own on the shared server.
func open(t *testing.T) *redisstore.Store {
	t.Helper()

	url, tag := redistest.New(t)
	store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	require.NoError(t, store.Ping(t.Context()))

	return store
}
