package pipeline_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestTables guarantees of every machine that each step leads to one state,
// every state is reached from where records are born, and the final states
// are those that the design names.
func TestTables(t *testing.T) {
	t.Parallel()

	t.Run("Job", func(t *testing.T) {
		t.Parallel()
		checkTable(t, pipeline.JobTransitions(), pipeline.JobState.Next,
			[]pipeline.JobState{pipeline.JobUploading, pipeline.JobPending},
			[]pipeline.JobState{pipeline.JobCompleted})
	})
	t.Run("Task", func(t *testing.T) {
		t.Parallel()
		checkTable(t, pipeline.TaskTransitions(), pipeline.TaskState.Next,
			[]pipeline.TaskState{pipeline.TaskBlocked, pipeline.TaskReady},
			[]pipeline.TaskState{pipeline.TaskDone, pipeline.TaskDead, pipeline.TaskCanceled})
	})
	t.Run("Upload", func(t *testing.T) {
		t.Parallel()
		checkTable(t, pipeline.UploadTransitions(), pipeline.UploadState.Next,
			[]pipeline.UploadState{pipeline.UploadOpen},
			[]pipeline.UploadState{
				pipeline.UploadCompleted, pipeline.UploadAborted, pipeline.UploadExpired, pipeline.UploadFailed,
			})
	})
	t.Run("Machine", func(t *testing.T) {
		t.Parallel()
		checkTable(t, pipeline.MachineTransitions(), pipeline.MachineState.Next,
			[]pipeline.MachineState{pipeline.MachineCreating},
			[]pipeline.MachineState{pipeline.MachineDestroyed})
	})
}

func checkTable[S, T ~string](
	t *testing.T, table []pipeline.Transition[S, T], next func(S, T) (S, bool), born, final []S,
) {
	t.Helper()

	type step struct {
		from S
		by   T
	}

	to := map[step]S{}
	states, movements, leaves := map[S]bool{}, map[T]bool{}, map[S]bool{}

	for _, row := range table {
		_, twice := to[step{row.From, row.By}]
		require.False(t, twice, "%s by %s is there twice", row.From, row.By)
		require.NotEqual(t, row.From, row.To)

		to[step{row.From, row.By}] = row.To
		states[row.From], states[row.To], movements[row.By], leaves[row.From] = true, true, true, true
	}

	for from := range states {
		for by := range movements {
			want, known := to[step{from, by}]
			if !known {
				want = from
			}

			got, ok := next(from, by)
			require.Equal(t, known, ok, "%s by %s", from, by)
			require.Equal(t, want, got, "%s by %s", from, by)
		}
	}

	reached := map[S]bool{}
	for _, s := range born {
		reached[s] = true
	}

	for range states {
		for s, target := range to {
			if reached[s.from] {
				reached[target] = true
			}
		}
	}

	require.Equal(t, states, reached, "every state is reached")

	var ends []S

	for s := range states {
		if !leaves[s] {
			ends = append(ends, s)
		}
	}

	require.ElementsMatch(t, final, ends)
}

// TestTerminal guarantees that a job has ended when it can only be tried anew.
func TestTerminal(t *testing.T) {
	t.Parallel()

	for _, row := range pipeline.JobTransitions() {
		require.Equal(t, row.By == pipeline.JobRetry, row.From.Terminal(), row.From)
	}

	require.True(t, pipeline.JobCompleted.Terminal())
}
