package redisstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// Inspect tells what doctor judges a server by.
func TestInspect(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	info, err := store.Inspect(t.Context())

	require.NoError(t, err)
	require.Regexp(t, `^\d+\.\d+`, info.Version)
	require.Equal(t, "yes", info.AppendOnly)
	require.Equal(t, "noeviction", info.MaxMemoryPolicy)
	require.WithinDuration(t, time.Now(), info.Time, time.Minute)
}
