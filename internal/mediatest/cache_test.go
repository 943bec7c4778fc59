package mediatest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// TestConcurrentUse guarantees that tests that ask for one clip at once get one whole file, and leave nothing else
// behind but its lock.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	paths := make([]string, 8)

	var group errgroup.Group
	for i := range paths {
		group.Go(func() (err error) {
			paths[i], err = clip(t.Context(), dir, string(TailMoov), recipes()[TailMoov])

			return err
		})
	}

	require.NoError(t, group.Wait())

	for _, path := range paths {
		require.Equal(t, paths[0], path)
	}

	info, err := os.Stat(paths[0])
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(900_000))

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 4, "two clips and their locks: %v", files)
}
