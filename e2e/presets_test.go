package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// Each preset guarantees outputs that play to the end, under the names that
// the job tells, and a job whose states and times follow each other.
func TestPresets(t *testing.T) {
	t.Parallel()
	s := up(t)
	film := mediatest.Clip(t, mediatest.Film)
	for preset, want := range map[string]struct {
		args  []string
		files []string // to open
		sizes []string
	}{
		"default":       {nil, []string{"720p.mp4"}, []string{"1280x720"}},
		"web-optimized": {[]string{"--quality", "480p", "--quality", "240p"}, []string{"480p.mp4", "240p.mp4"}, []string{"854x480", "426x240"}},
		"hls":           {[]string{"--quality", "360p"}, []string{"master.m3u8", "360p.m3u8", "audio.m3u8"}, []string{"640x360"}},
		"hls-adaptive":  {nil, []string{"master.m3u8", "720p.m3u8", "480p.m3u8", "360p.m3u8"}, []string{"1280x720", "854x480", "640x360"}},
	} {
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			job := transcode(t, s.url, film, append([]string{"--preset", preset, "-o", dir}, want.args...)...)
			requireCompleted(t, job)
			require.Equal(t, want.sizes, renditionSizes(job.GetOutputs()[0]))
			for _, file := range want.files {
				mediatest.DecodeClean(t, filepath.Join(dir, file))
				if file == "master.m3u8" {
					mediatest.CheckHLSDir(t, dir)
				}
			}
			for _, object := range job.GetOutputs()[0].GetObjects() {
				info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(object.GetName())))
				require.NoError(t, err)
				require.EqualValues(t, object.GetSizeBytes(), info.Size(), object.GetName())
			}
			requireDistinct(t, job.GetOutputs()[0])
		})
	}
}

func requireCompleted(t *testing.T, job *tcoderv1.Job) {
	t.Helper()
	require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, job.GetState(), "%v", job.GetFailure())
	require.Nil(t, job.GetFailure())
	times := job.GetTimes()
	order := []int64{
		times.GetCreatedAt().AsTime().UnixMilli(), times.GetQueuedAt().AsTime().UnixMilli(), times.GetStartedAt().AsTime().UnixMilli(),
		times.GetPlannedAt().AsTime().UnixMilli(), times.GetFinishedAt().AsTime().UnixMilli(),
	}
	require.IsNonDecreasing(t, order)
	require.Positive(t, order[0])
	require.InDelta(t, 100, job.GetProgress().GetPercent(), 0)
	for _, task := range job.GetTasks() {
		require.Equal(t, tcoderv1.TaskState_TASK_STATE_DONE, task.GetState())
		require.Len(t, task.GetAttempts(), 1)
	}
	require.NotEmpty(t, job.GetOutputs())
}

func renditionSizes(o *tcoderv1.Output) []string {
	var sizes []string
	for _, r := range o.GetRenditions() {
		if r.GetHeight() > 0 {
			sizes = append(sizes, fmt.Sprintf("%dx%d", r.GetWidth(), r.GetHeight()))
		}
	}

	return sizes
}

// requireDistinct says that every rung was really encoded: fewer lines, fewer bits.
func requireDistinct(t *testing.T, o *tcoderv1.Output) {
	t.Helper()
	var before *tcoderv1.RenditionResult
	for _, r := range o.GetRenditions() {
		if strings.HasPrefix(r.GetCodecs(), "mp4a") {
			continue
		}
		require.Positive(t, r.GetAverageBitrateBps())
		if before != nil {
			require.Less(t, r.GetHeight(), before.GetHeight())
			require.Less(t, r.GetAverageBitrateBps(), before.GetAverageBitrateBps())
		}
		before = r
	}
}
