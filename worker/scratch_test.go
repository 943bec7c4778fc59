package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestScratchTogether guarantees that workers that start at the same time, as
// after a crash of the whole computer, don't trip over each other while they
// remove what the dead left.
func TestScratchTogether(t *testing.T) {
	t.Parallel()

	base := t.TempDir()

	for round := range 20 {
		for i := range 8 {
			dead := filepath.Join(base, fmt.Sprintf("%sdead-%d-%d", scratchPrefix, round, i))
			require.NoError(t, os.MkdirAll(filepath.Join(dead, "attempt-1"), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dead, scratchLock), nil, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dead, "attempt-1", "00000.m4s"), nil, 0o600))
		}

		var starts sync.WaitGroup

		errs := make([]error, 8)
		for i := range errs {
			starts.Go(func() {
				s, err := openScratch(base, fmt.Sprintf("w-%d-%d", round, i))
				if err == nil {
					err = s.close()
				}

				errs[i] = err
			})
		}

		starts.Wait()
		require.NoError(t, errors.Join(errs...))
	}
}
