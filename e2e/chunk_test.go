package e2e_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// A long source guarantees work for many workers at a time: its picture is
// made in chunks and its sound apart, and what comes of it plays as if one
// had made it, with every frame in its place and the sound with it.
func TestChunked(t *testing.T) {
	t.Parallel()
	s := up(t, "--pool-limit", "3", "--pool-min-warm", "3")
	// For so little work the pool would start no second worker.
	for pool, err := range client(t, s.url).WatchPool(t.Context()) {
		require.NoError(t, err)
		if pool.GetPool().GetSlots() == 3 {
			break
		}
	}
	dir := t.TempDir()
	job := transcode(t, s.url, mediatest.Clip(t, mediatest.LongFlashBeep), "--preset", "hls-adaptive", "--quality", "240p", "-o", dir)
	requireCompleted(t, job)

	chunks := job.GetPlan().GetOutputs()[0].GetChunks()
	require.Len(t, chunks, 4, "4 s to begin with, then 12 s each, and the rest")
	kinds := map[tcoderv1.TaskKind][]uint32{}
	workers := map[string]bool{}
	for _, task := range job.GetTasks() {
		kinds[task.GetKind()] = append(kinds[task.GetKind()], task.GetPart())
		workers[task.GetAttempts()[0].GetWorkerId()] = true
	}
	require.Equal(t, map[tcoderv1.TaskKind][]uint32{
		tcoderv1.TaskKind_TASK_KIND_PROBE:  {0},
		tcoderv1.TaskKind_TASK_KIND_ENCODE: {1, 2, 3, 4},
		tcoderv1.TaskKind_TASK_KIND_AUDIO:  {0},
	}, kinds)
	require.Greater(t, len(workers), 1)

	result := job.GetOutputs()[0].GetRenditions()[0]
	require.EqualValues(t, 36*24, result.GetFrameCount())
	require.Equal(t, 36*time.Second, result.GetDuration().AsDuration())
	mediatest.CheckHLSDir(t, dir)
	master := filepath.Join(dir, "master.m3u8")
	mediatest.DecodeClean(t, master)
	beats := mediatest.Beats(t, master)
	require.Len(t, beats, 35)
	for i, beat := range beats {
		require.InDelta(t, float64(i+1), beat.Flash.Seconds(), 0.022)
		require.InDelta(t, 0, beat.Offset().Seconds(), 0.030, "beat %d", i)
	}
}
