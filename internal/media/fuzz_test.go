package media_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// FuzzTaskID guarantees that a task's id has one spelling, and that what has
// another names no task.
func FuzzTaskID(f *testing.F) {
	for _, id := range []string{"a-0", "a-00", "a-", "-0", "a--1", "a-b-1", "a-99999999999999999999", "a-+1", ""} {
		f.Add(id)
	}

	f.Fuzz(func(t *testing.T, id string) {
		job, index, ok := media.SplitTaskID(id)
		if !ok {
			return
		}

		require.Equal(t, id, media.TaskID(job, index))
		require.GreaterOrEqual(t, index, 0)
		require.False(t, job == "" || strings.Contains(job, "-"))
	})
}
