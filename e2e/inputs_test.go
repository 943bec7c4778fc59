package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// audioFrame is one frame of AAC at 48 kHz, the grain of A/V offsets.
const audioFrame = 1024 * time.Second / 48000

// Whatever a phone, a camera or a screen recorder makes guarantees to become
// a stream that is upright, even-sized, of constant cadence, complete, with
// sound only where there was some and in step with the picture.
func TestOddInputs(t *testing.T) {
	t.Parallel()
	s := up(t)
	for id, want := range map[mediatest.ID]struct {
		width, height int
		fps           float64
		silent        bool
	}{
		mediatest.Film:         {426, 240, 24, false},
		mediatest.Rotated:      {240, 426, 24, false},
		mediatest.Portrait:     {240, 426, 24, false},
		mediatest.VariableRate: {426, 240, 24, false},
		mediatest.HighRate:     {426, 240, 60000.0 / 1001, false},
		mediatest.NoAudio:      {426, 240, 24, true},
		mediatest.OddSize:      {428, 240, 24, true},
		mediatest.VP9Opus:      {426, 240, 24, false},
		mediatest.ManyStreams:  {426, 240, 24, false},
		mediatest.Surround:     {426, 240, 24, false},
		mediatest.Deep444:      {426, 240, 24, false},
		mediatest.HDR10:        {426, 240, 24, true},
		mediatest.ProRes:       {426, 240, 24, false},
		mediatest.Interlaced:   {320, 240, 25, false},
		mediatest.OffsetStart:  {426, 240, 24, false},
		mediatest.TailMoov:     {426, 240, 24, false},
		mediatest.GIF:          {320, 180, 10, true},
	} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			clip := mediatest.Clip(t, id)
			job := transcode(t, s.url, clip, "--preset", "hls-adaptive", "--quality", "240p", "-o", dir)
			requireCompleted(t, job)
			rendition := job.GetOutputs()[0].GetRenditions()[0]
			path := filepath.Join(dir, rendition.GetName()+".m3u8")
			mediatest.DecodeClean(t, filepath.Join(dir, "master.m3u8"))
			mediatest.CheckHLSDir(t, dir)
			info := mediatest.Probe(t, path)
			require.Len(t, info.Video, 1)
			video := info.Video[0]
			require.Equal(t, want.width, video.Width)
			require.Equal(t, want.height, video.Height)
			require.Equal(t, "h264", video.Codec)
			require.Equal(t, "yuv420p", video.PixelFormat)
			require.Zero(t, video.RotationDegrees)
			require.InDelta(t, want.fps, video.FrameRate.Float(), 0.01)
			frame := time.Duration(float64(time.Second) / want.fps)
			require.InDelta(t, pictureDuration(t, clip).Seconds()*want.fps, float64(video.Frames), 1.01)
			requireKeyframes(t, path, frame)

			picture := mediatest.Spans(t, path)[0]
			sound := filepath.Join(dir, "audio.m3u8")
			if want.silent {
				require.NoFileExists(t, sound)

				return
			}
			require.Len(t, mediatest.Probe(t, sound).Audio, 1)
			heard := mediatest.Spans(t, sound)[0]
			require.LessOrEqual(t, (heard.First - picture.First).Abs(), audioFrame+time.Millisecond, "A/V start")
		})
	}
}

// pictureDuration is how long a source's picture lasts from the source's start.
func pictureDuration(t *testing.T, clip string) time.Duration {
	t.Helper()
	info := mediatest.Probe(t, clip)
	spans := mediatest.Spans(t, clip)
	start := spans[info.Video[0].Index].First
	for _, stream := range info.Audio {
		start = min(start, spans[stream.Index].First)
	}

	return spans[info.Video[0].Index].End - start
}

// requireKeyframes says that each segment starts at a keyframe and that the
// keyframes are where the plan puts them: every two seconds.
func requireKeyframes(t *testing.T, path string, frame time.Duration) {
	t.Helper()
	times := mediatest.KeyframeTimes(t, path)
	require.NotEmpty(t, times)
	for i := 1; i < len(times); i++ {
		require.InDelta(t, 2, (times[i] - times[i-1]).Seconds(), frame.Seconds()/2)
	}
}

// Picture and sound guarantee to stay within one audio frame of each other,
// from the first flash to the last.
func TestPictureAndSoundInStep(t *testing.T) {
	t.Parallel()
	s := up(t)
	for _, preset := range []string{"default", "web-optimized"} {
		dir := t.TempDir()
		job := transcode(t, s.url, mediatest.Clip(t, mediatest.FlashBeep), "--preset", preset, "-o", dir)
		requireCompleted(t, job)
		beats := mediatest.Beats(t, filepath.Join(dir, job.GetOutputs()[0].GetEntry()))
		require.Len(t, beats, 5)
		for _, beat := range beats {
			require.LessOrEqual(t, beat.Offset().Abs(), audioFrame+time.Millisecond, preset)
		}
	}
}

// Sources of sound alone guarantee an audio-only stream, cover or not, and an
// audio file from the MP4 presets.
func TestAudioOnly(t *testing.T) {
	t.Parallel()
	s := up(t)
	for _, id := range []mediatest.ID{mediatest.AudioOnly, mediatest.Cover} {
		dir := t.TempDir()
		requireCompleted(t, transcode(t, s.url, mediatest.Clip(t, id), "--preset", "hls-adaptive", "-o", dir))
		master, err := os.ReadFile(filepath.Join(dir, "master.m3u8"))
		require.NoError(t, err)
		require.NotContains(t, string(master), "RESOLUTION")
		mediatest.DecodeClean(t, filepath.Join(dir, "master.m3u8"))
		info := mediatest.Probe(t, filepath.Join(dir, "audio.m3u8"))
		require.Empty(t, info.Video)
		require.Len(t, info.Audio, 1)

		requireCompleted(t, transcode(t, s.url, mediatest.Clip(t, id), "-o", dir))
		require.Len(t, mediatest.Probe(t, filepath.Join(dir, "audio.m4a")).Audio, 1)
	}
}

// One frame guarantees a file of one frame.
func TestOneFrame(t *testing.T) {
	t.Parallel()
	s := up(t)
	dir := t.TempDir()
	requireCompleted(t, transcode(t, s.url, mediatest.Clip(t, mediatest.OneFrame), "--preset", "web-optimized", "--quality", "240p", "-o", dir))
	require.Equal(t, 1, mediatest.Probe(t, filepath.Join(dir, "240p.mp4")).Video[0].Frames)
}

// Broken input guarantees a FAILED job with a stable reason, after one
// attempt, with nothing left running.
func TestBrokenInputs(t *testing.T) {
	t.Parallel()
	s := up(t)
	var called atomic.Bool
	service := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called.Store(true) }))
	t.Cleanup(func() {
		service.Close()
		require.False(t, called.Load(), "a source made the worker call a service of this machine")
	})
	hostile := mediatest.Hostile(t, service.URL+"/latest/meta-data")
	bombs := mediatest.Bombs(t)
	for name, c := range map[string]struct {
		clip   string
		reason tcoderv1.ErrorReason
	}{
		"text":                {mediatest.Clip(t, mediatest.Text), tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"index missing":       {mediatest.Clip(t, mediatest.TruncatedIndex), tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED},
		"tail missing":        {mediatest.Clip(t, mediatest.TruncatedTail), tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED},
		"playlist, disguised": {mediatest.DisguisedPlaylist(t, service.URL+"/x.ts"), tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"concat, disguised":   {mediatest.DisguisedConcat(t, "/etc/hostname"), tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"manifest, disguised": {hostile["dash"], tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"picture, disguised":  {hostile["svg"], tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"reference movie":     {hostile["mov, reference movie"], tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"huge picture":        {bombs["gif, huge"], tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED},
		"picture of days":     {bombs["gif, endless"], tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, errs, code := cli(t, s.url, "transcode", c.clip, "--json", "--preset", "hls")
			require.Equal(t, 1, code, errs)
			job := parseJob(t, out)
			require.Equal(t, tcoderv1.JobState_JOB_STATE_FAILED, job.GetState())
			require.Equal(t, c.reason, job.GetFailure().GetReason(), job.GetFailure().GetMessage())
			require.NotEmpty(t, job.GetFailure().GetMessage())
			require.NotContains(t, job.GetFailure().GetMessage(), "/")
			require.Len(t, job.GetTasks(), 1)
			require.Len(t, job.GetTasks()[0].GetAttempts(), 1)
		})
	}
}

// A bad request guarantees its exit code and a typed error, before any byte
// is sent.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	s := up(t)
	film := mediatest.Clip(t, mediatest.Film)
	for name, c := range map[string]struct {
		args   []string
		code   int
		reason string
	}{
		"unknown preset":  {[]string{"transcode", film, "--preset", "hsl"}, 1, "UNKNOWN_PRESET"},
		"unknown quality": {[]string{"transcode", film, "--quality", "721p"}, 1, "UNKNOWN_QUALITY"},
		"two for one":     {[]string{"transcode", film, "--preset", "hls", "--quality", "720p", "--quality", "480p"}, 1, "SPEC_INVALID"},
		"empty file":      {[]string{"transcode", mediatest.Clip(t, mediatest.Empty)}, 1, "SIZE_INVALID"},
		"unknown job":     {[]string{"jobs", "get", "01ARZ3NDEKTSV4RRFFQ69G5FAV"}, 1, "JOB_NOT_FOUND"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, errs, code := cli(t, s.url, append(c.args, "--json")...)
			require.Equal(t, c.code, code, errs)
			e := parseError(t, out)
			require.Equal(t, c.reason, e.Error.Reason)
			require.NotEmpty(t, e.Error.Code)
			require.NotEmpty(t, e.Error.Message)
		})
	}
	_, _, code := cli(t, s.url, "transcode")
	require.Equal(t, 2, code, "usage")
	_, errs, code := cli(t, "http://"+freeAddress(t), "jobs", "list")
	require.Equal(t, 3, code, "unreachable: %s", errs)
	require.NotContains(t, errs, "goroutine")
}
