package e2e_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// A file of a long source is made by many workers at a time too, and one beside
// a stream isn't encoded again: it is put together of the segments that there
// are, with every frame in its place and the sound with it.
func TestAssembled(t *testing.T) {
	t.Parallel()
	s := up(t, "--pool-limit", "2", "--pool-min-warm", "2")
	clip := mediatest.Clip(t, mediatest.LongFlashBeep)

	t.Run("a long source", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		job := transcode(t, s.url, clip, "--preset", "web-optimized", "--quality", "240p", "-o", dir)
		requireCompleted(t, job)
		require.Equal(t, map[tcoderv1.TaskKind]int{
			tcoderv1.TaskKind_TASK_KIND_PROBE: 1, tcoderv1.TaskKind_TASK_KIND_ENCODE: 3,
			tcoderv1.TaskKind_TASK_KIND_AUDIO: 1, tcoderv1.TaskKind_TASK_KIND_ASSEMBLE: 1,
		}, kindsOf(job))
		require.Len(t, job.GetOutputs(), 1, "what it was made of isn't published")
		requireWhole(t, job.GetOutputs()[0], filepath.Join(dir, "240p.mp4"))
	})
	t.Run("beside a stream", func(t *testing.T) {
		t.Parallel()
		c := client(t, s.url)
		upload, err := c.UploadFile(t.Context(), clip, tcoder.UploadOptions{Spec: &tcoderv1.JobSpec{
			Preset: "hls-adaptive", Qualities: []string{"240p"}, Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER,
			Outputs: []*tcoderv1.OutputSpec{
				{Name: "mp4", Kind: tcoderv1.OutputKind_OUTPUT_KIND_MP4}, {Name: "hls", Kind: tcoderv1.OutputKind_OUTPUT_KIND_HLS},
			},
		}})
		require.NoError(t, err)
		job, err := c.Wait(t.Context(), upload.Job.GetId())
		require.NoError(t, err)
		requireCompleted(t, job)
		require.Equal(t, map[tcoderv1.TaskKind]int{
			tcoderv1.TaskKind_TASK_KIND_PROBE: 1, tcoderv1.TaskKind_TASK_KIND_ENCODE: 4,
			tcoderv1.TaskKind_TASK_KIND_AUDIO: 1, tcoderv1.TaskKind_TASK_KIND_ASSEMBLE: 1,
		}, kindsOf(job))
		dir := t.TempDir()
		_, err = c.Download(t.Context(), job.GetId(), tcoder.DownloadOptions{Dir: dir})
		require.NoError(t, err)
		require.Equal(t, []string{"mp4", "hls"}, []string{job.GetOutputs()[0].GetName(), job.GetOutputs()[1].GetName()})
		file := filepath.Join(dir, "mp4", "240p.mp4")
		requireWhole(t, job.GetOutputs()[0], file)
		require.Equal(t, mediatest.FrameTimes(t, filepath.Join(dir, "hls", "240p.m3u8")), mediatest.FrameTimes(t, file))
	})
}

func kindsOf(job *tcoderv1.Job) map[tcoderv1.TaskKind]int {
	kinds := map[tcoderv1.TaskKind]int{}
	for _, task := range job.GetTasks() {
		kinds[task.GetKind()]++
	}

	return kinds
}

// requireWhole says that a file holds all of LongFlashBeep, its index first.
func requireWhole(t *testing.T, output *tcoderv1.Output, path string) {
	t.Helper()
	result := output.GetRenditions()[0]
	require.EqualValues(t, 36*24, result.GetFrameCount())
	require.Equal(t, "avc1.640015,mp4a.40.2", result.GetCodecs())
	require.InDelta(t, 36, result.GetDuration().AsDuration().Seconds(), 1./24)
	mediatest.DecodeClean(t, path)
	mediatest.RequireFaststart(t, path)
	times := mediatest.FrameTimes(t, path)
	require.Len(t, times, 36*24)
	for i, at := range times {
		require.InDelta(t, float64(i)/24, at.Seconds(), 0.0002, "frame %d", i)
	}
	beats := mediatest.Beats(t, path)
	require.Len(t, beats, 35)
	for i, beat := range beats {
		require.InDelta(t, float64(i+1), beat.Flash.Seconds(), 0.001)
		require.InDelta(t, 0, beat.Offset().Seconds(), (1024 * time.Second / 48000).Seconds(), "beat %d", i)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, output.GetSizeBytes(), info.Size())
}
