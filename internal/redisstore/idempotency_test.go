package redisstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// TestExpiredKeys guarantees that the sweeper removes idempotency keys that
// expired, and none that is good still: neither one that expires later nor one
// that was given again.
func TestExpiredKeys(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store, err := New(Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	ctx := t.Context()
	create := func(id, key string, ttl time.Duration) {
		t.Helper()

		j, err := store.CreateJob(ctx, pipeline.Job{ID: id, Project: "p"}, pipeline.NewTask{Kind: pipeline.KindProbe},
			pipeline.Admission{IdempotencyKey: key, Fingerprint: "f", KeyTTL: ttl})
		require.NoError(t, err)
		require.Equal(t, id, j.ID)
	}
	kept := func(key string) bool {
		t.Helper()

		n, err := store.client.Exists(ctx, store.keys.idempotency("job", "p", key)).Result()
		require.NoError(t, err)

		return n == 1
	}
	sweep := func() {
		t.Helper()

		_, err := store.Sweep(ctx, pipeline.SweepRequest{Replica: "r", LeaderTTL: time.Minute, Lease: time.Minute})
		require.NoError(t, err)
	}

	create("a", "short", time.Minute)
	create("b", "again", time.Minute)
	create("c", "long", time.Hour)
	sweep()
	require.True(t, kept("short"))

	require.NoError(t, store.AdvanceClock(ctx, 2*time.Minute))
	create("d", "again", time.Hour)
	sweep()
	require.False(t, kept("short"))
	require.True(t, kept("again"))
	require.True(t, kept("long"))

	require.NoError(t, store.AdvanceClock(ctx, 2*time.Hour))
	sweep()
	require.False(t, kept("again"))
	require.False(t, kept("long"))
}
