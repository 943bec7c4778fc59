package ffmpeg_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestEncodeProgress guarantees that progress is told while FFmpeg works, and
// that segments are told as they are finished, each once, complete and as the
// result has them; what was told may be removed.
func TestEncodeProgress(t *testing.T) {
	t.Parallel()

	source := clip(t, mediatest.Film)
	work := plan(t, probe(t, source), media.Spec{Preset: "hls-adaptive", Qualities: []string{"480p", "240p"}})
	dir := t.TempDir()

	var (
		last ffmpeg.Progress
		mu   sync.Mutex
		told = map[string][]*tcoderv1.EncodedObject{}
	)

	renditions, err := ffmpeg.Encode(t.Context(), tools(t), ffmpeg.EncodeRequest{
		Source: source, Work: work, Dir: dir,
		OnProgress: func(p ffmpeg.Progress) {
			mu.Lock()
			defer mu.Unlock()

			require.GreaterOrEqual(t, p.OutTime, last.OutTime)
			require.True(t, p.Fraction >= last.Fraction && p.Fraction <= 1)

			last = p
		},
		OnSegments: func(finished []ffmpeg.Segments) {
			for _, s := range finished {
				name := s.Rendition.GetName()
				require.Len(t, told[name], s.First)
				require.NotEmpty(t, s.Rendition.GetCodecs())
				require.Equal(t, name+"/init.mp4", s.Init.GetName())

				for _, object := range s.Objects {
					path := filepath.Join(dir, object.GetName())
					info, err := os.Stat(path)
					require.NoError(t, err)
					require.EqualValues(t, info.Size(), object.GetSizeBytes())
					require.NoError(t, os.Remove(path))
				}

				told[name] = append(told[name], s.Objects...)
			}
		},
	})
	require.NoError(t, err)

	for _, r := range renditions {
		require.Equal(t, r.GetSegments(), told[r.GetResult().GetName()])
	}

	require.InDelta(t, 1, last.Fraction, 0)
	require.EqualValues(t, 168, last.Frame)
	require.InDelta(t, 7, last.OutTime.Seconds(), 0.1)
	require.Positive(t, last.Speed)
}

// encodeFault encodes in vain and returns why.
func encodeFault(t testing.TB, used ffmpeg.Tools, req ffmpeg.EncodeRequest) *ffmpeg.Fault {
	t.Helper()

	req.Dir = t.TempDir()
	_, err := ffmpeg.Encode(t.Context(), used, req)
	found, ok := errors.AsType[*ffmpeg.Fault](err)
	require.True(t, ok, "%v", err)
	require.NotContains(t, found.Message, req.Dir, "the message is for users")

	return found
}

// TestEncodeFaults guarantees that an encode which can't succeed ends with the
// fault of whose it is.
func TestEncodeFaults(t *testing.T) {
	t.Parallel()

	source := clip(t, mediatest.Film)
	found := probe(t, source)
	work := func() *tcoderv1.EncodeWork { return plan(t, found, quick("hls-adaptive", "240p")) }

	t.Run("truncated", func(t *testing.T) {
		t.Parallel()

		// The probe saw the whole, FFmpeg gets the half.
		half := clip(t, mediatest.TruncatedTail)
		got := encodeFault(t, tools(t), ffmpeg.EncodeRequest{Source: half, Work: work()})
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, got.Reason)
		require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_INPUT, got.Class)

		half.TransferError = func() error { return errors.New("the store is away") }
		got = encodeFault(t, tools(t), ffmpeg.EncodeRequest{Source: half, Work: work()})
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, got.Reason)
	})
	t.Run("corrupt", func(t *testing.T) {
		t.Parallel()

		// A few damaged places cost some pictures, not the job.
		damaged := clip(t, mediatest.Corrupt)
		_, dir, renditions := encode(t, damaged, quick("hls-adaptive", "240p"))
		mediatest.DecodeClean(t, playable(dir, renditions[0]))
	})
	t.Run("not media", func(t *testing.T) {
		t.Parallel()

		got := encodeFault(t, tools(t), ffmpeg.EncodeRequest{Source: clip(t, mediatest.Text), Work: work()})
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, got.Reason)
		require.NotEmpty(t, got.Log)
	})
	t.Run("time limit", func(t *testing.T) {
		t.Parallel()

		got := encodeFault(t, tools(t), ffmpeg.EncodeRequest{Source: source, Work: work(), TimeLimit: 20 * time.Millisecond})
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, got.Reason)
	})
	t.Run("file size", func(t *testing.T) {
		t.Parallel()

		small := tools(t)
		small.MaxFileBytes = 4096
		got := encodeFault(t, small, ffmpeg.EncodeRequest{Source: source, Work: work()})
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, got.Reason)
	})
	t.Run("bad work", func(t *testing.T) {
		t.Parallel()

		bad := work()
		bad.Output.Video.Renditions[0].Name = "../up"
		got := encodeFault(t, tools(t), ffmpeg.EncodeRequest{Source: source, Work: bad})
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, got.Reason)
	})
	t.Run("timestamps that jump", func(t *testing.T) {
		t.Parallel()

		// The source claims 1 s and goes on for seven: it is cut, not followed.
		short, _ := proto.Clone(work()).(*tcoderv1.EncodeWork) // the other tests share the source
		short.Duration = durationpb.New(time.Second)
		dir := t.TempDir()

		renditions, err := ffmpeg.Encode(t.Context(), tools(t), ffmpeg.EncodeRequest{Source: source, Work: cut(short), Dir: dir})
		require.NoError(t, err)
		require.InDelta(t, 1, renditions[0].GetResult().GetDuration().AsDuration().Seconds(), 0.05)
		require.InDelta(t, 2, renditions[1].GetResult().GetDuration().AsDuration().Seconds(), 0.05)
	})
}

// cut is a work whose source is believed to be as short as its duration.
func cut(work *tcoderv1.EncodeWork) *tcoderv1.EncodeWork {
	work.Output.Video.ExpectedFrames = 24
	for _, s := range work.GetSource().GetStreams() {
		s.Duration = work.GetDuration()
	}

	return work
}

// TestEncodeStalled guarantees that an encode whose source goes silent ends by
// itself, and leaves no process.
func TestEncodeStalled(t *testing.T) {
	t.Parallel()

	source := clip(t, mediatest.Film)
	work := plan(t, probe(t, source), quick("hls", "240p"))

	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)

	impatient := tools(t)
	impatient.StallTimeout = 200 * time.Millisecond
	impatient.KillGrace = 100 * time.Millisecond

	got := encodeFault(t, impatient, ffmpeg.EncodeRequest{Source: ffmpeg.Source{URL: silent.URL, SizeBytes: 1}, Work: work})
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, got.Reason)
	require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, got.Class)
}

// TestEncodeCancel guarantees that a cancel in the middle of an encode ends
// FFmpeg at once and is told as a cancel.
func TestEncodeCancel(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	source := clip(t, mediatest.Film)
	spec := media.Spec{Preset: "hls-adaptive", Video: media.VideoSettings{EncoderPreset: "slow"}}
	work := plan(t, probe(t, source), spec)

	var canceled time.Time

	_, err := ffmpeg.Encode(ctx, tools(t), ffmpeg.EncodeRequest{
		Source: source, Work: work, Dir: t.TempDir(),
		OnProgress: func(ffmpeg.Progress) {
			if canceled.IsZero() {
				canceled = time.Now()

				cancel()
			}
		},
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(canceled), 10*time.Second)
}
