package s3test_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/s3test"
)

func TestMain(m *testing.M) {
	s3test.Main(m)
}

// Tests share a server and never a bucket.
func TestNew(t *testing.T) {
	t.Parallel()
	cfg1, cfg2 := s3test.New(t), s3test.New(t)
	require.Equal(t, cfg1.Endpoint, cfg2.Endpoint)
	require.NotEqual(t, cfg1.Bucket, cfg2.Bucket)

	store1, store2 := newStore(t, cfg1), newStore(t, cfg2)
	require.NoError(t, store1.Put(t.Context(), "key", strings.NewReader("x"), objectstore.PutOptions{}))
	_, err := store2.Head(t.Context(), "key")
	require.ErrorIs(t, err, objectstore.ErrNotFound)
}

func newStore(t *testing.T, cfg s3.Config) *s3.Store {
	t.Helper()
	store, err := s3.New(cfg)
	require.NoError(t, err)
	t.Cleanup(store.Close)
	return store
}
