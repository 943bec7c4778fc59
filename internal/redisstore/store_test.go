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

	url, _ := redistest.New(t)
	conform(t, redisstore.Config{URL: url})
}

// TestConformanceTLS guarantees the same of an encrypted connection with a
// user and a password, as hosted Redis has it.
func TestConformanceTLS(t *testing.T) {
	t.Parallel()

	server := redistest.StartTLS(t)
	conform(t, redisstore.Config{URL: server.URL, TLS: server.Config})
}

// TestConformanceCluster guarantees the same of a cluster: no script touches
// keys of two slots, and notices find their way.
func TestConformanceCluster(t *testing.T) {
	t.Parallel()

	conform(t, redisstore.Config{URL: "redis+cluster://" + redistest.StartCluster(t)})
}

// TestConformanceBare guarantees the same of a server whose Lua has neither
// struct nor cmsgpack.
func TestConformanceBare(t *testing.T) {
	t.Parallel()

	url, _ := redistest.New(t)
	conform(t, redisstore.Config{URL: url}, redisstore.WithoutLibraries(t))
}

// conform runs the suite on a server, each test with a hash tag of its own.
func conform(t *testing.T, cfg redisstore.Config, change ...func(*redisstore.Store)) {
	t.Helper()

	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()

		own := cfg
		_, own.Tag = redistest.New(t)
		store := openAs(t, own)

		for _, f := range change {
			f(store)
		}

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

	return openAs(t, redisstore.Config{URL: url, Tag: tag})
}

func openAs(t *testing.T, cfg redisstore.Config) *redisstore.Store {
	t.Helper()

	store, err := redisstore.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	require.NoError(t, store.Ping(t.Context()))

	return store
}
