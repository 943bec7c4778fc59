package ffmpeg_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

func run(t *testing.T, source ffmpeg.Source, work *tcoderv1.EncodeWork) (string, []*tcoderv1.EncodedRendition) {
	t.Helper()

	dir := t.TempDir()
	made, err := ffmpeg.Encode(t.Context(), tools(t), ffmpeg.EncodeRequest{Source: source, Work: work, Dir: dir, TimeLimit: time.Minute})
	require.NoError(t, err)

	return dir, made
}

// checkAligned checks that two renditions have the same frames and the same segments.
func checkAligned(t *testing.T, a, b *tcoderv1.EncodedRendition) {
	t.Helper()

	require.Equal(t, a.GetResult().GetFrameCount(), b.GetResult().GetFrameCount())
	require.Len(t, b.GetSegments(), len(a.GetSegments()))

	for i, s := range a.GetSegments() {
		require.InDelta(t, s.GetDuration().AsDuration().Seconds(), b.GetSegments()[i].GetDuration().AsDuration().Seconds(), 0.0001, "segment %d", i)
	}
}

// TestEncodeCopyTop guarantees that a ladder whose largest rendition is the
// source itself is cut at the source's keyframes in all renditions, frame by
// frame and in the playlists, also where it is made in chunks, and that the
// copied picture is the source's, bit by bit.
func TestEncodeCopyTop(t *testing.T) {
	t.Parallel()

	source := clip(t, mediatest.Film)
	work := plan(t, probe(t, source), quick("hls-adaptive", "720p", "240p"))
	require.Equal(t, []bool{true, false}, []bool{work.GetOutput().GetVideo().GetRenditions()[0].GetCopy(), work.GetOutput().GetVideo().GetRenditions()[1].GetCopy()})
	require.True(t, work.GetOutput().GetAudio().GetCopy())
	require.Equal(t, []uint64{0, 96}, work.GetOutput().GetVideo().GetSegmentStarts())

	dir, made := run(t, source, work)
	require.Len(t, made, 3)

	copied, small := made[0], made[1]
	require.True(t, copied.GetResult().GetCopied())
	require.False(t, small.GetResult().GetCopied())
	checkAligned(t, copied, small)
	require.Equal(t, mediatest.PacketsSum(t, mediatest.Clip(t, mediatest.Film), "v"), mediatest.PacketsSum(t, playable(dir, copied), "v"))
	require.Equal(t, mediatest.PacketsSum(t, mediatest.Clip(t, mediatest.Film), "a"), mediatest.PacketsSum(t, playable(dir, made[2]), "a"))

	for _, r := range made {
		mediatest.DecodeClean(t, playable(dir, r))
	}

	require.Equal(t, mediatest.FrameTimes(t, mediatest.Clip(t, mediatest.Film)), mediatest.FrameTimes(t, playable(dir, copied)))
	require.Equal(t, mediatest.FrameTimes(t, mediatest.Clip(t, mediatest.Film)), mediatest.FrameTimes(t, playable(dir, small)))
	require.Equal(t, []time.Duration{0, 4 * time.Second}, mediatest.KeyframeTimes(t, playable(dir, small)))

	// In chunks: the encoded rendition in two, the copy beside them.
	var (
		segments []*tcoderv1.EncodedObject
		joined   bytes.Buffer
	)

	for i, c := range []*tcoderv1.Chunk{{FirstFrame: 0, EndFrame: 96}, {FirstFrame: 96, EndFrame: 168}} {
		part := proto.CloneOf(work)
		part.Output.Chunks, part.Output.Audio = []*tcoderv1.Chunk{c}, nil
		part.Output.Video.Renditions = part.GetOutput().GetVideo().GetRenditions()[1:]
		chunkDir, got := run(t, source, part)
		require.Equal(t, read(t, dir, small.GetInitSegment()), read(t, chunkDir, got[0].GetInitSegment()))

		if i == 0 {
			joined.Write(read(t, chunkDir, got[0].GetInitSegment()))
		}

		for _, s := range got[0].GetSegments() {
			segments = append(segments, s)
			joined.Write(read(t, chunkDir, s))
		}
	}

	require.Len(t, segments, len(small.GetSegments()))

	for i, s := range small.GetSegments() {
		require.Equal(t, []any{s.GetName(), s.GetDuration().AsDuration()}, []any{segments[i].GetName(), segments[i].GetDuration().AsDuration()})
	}

	path := filepath.Join(t.TempDir(), "joined.mp4")
	require.NoError(t, os.WriteFile(path, joined.Bytes(), 0o600))
	require.Equal(t, mediatest.FrameTimes(t, playable(dir, small)), mediatest.FrameTimes(t, path))
}

// TestEncodeCopyTopCadences guarantees the same where keyframes fall between
// the multiples of a segment, at cadences that divide no second, with pictures
// that are shown in another order than decoded, and with a keyframe so near the
// end that players would make nothing of a segment from there.
func TestEncodeCopyTopCadences(t *testing.T) {
	t.Parallel()

	for name, args := range map[string][]string{
		"23.976, every 2.5 s": {"-r", "24000/1001", "-g", "60"},
		"59.94, uneven":       {"-vf", "fps=60000/1001", "-force_key_frames", "0,1.3,1.9,3.1,5.7,6.2"},
		"no B-frames":         {"-bf", "0", "-g", "36"},
		"one at the end":      {"-vf", "fps=24,trim=end_frame=145", "-g", "24"},
		"30, deep":            {"-r", "30", "-bf", "4", "-b_strategy", "0", "-x264-params", "b-pyramid=normal:keyint=50:scenecut=0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "source.mp4")
			ffmpegMakes(t, path, append(append([]string{"-i", mediatest.Clip(t, mediatest.LongFlashBeep), "-t", "7"}, args...),
				"-c:v", "libx264", "-preset", "superfast", "-maxrate", "300k", "-bufsize", "300k", "-pix_fmt", "yuv420p", "-c:a", "copy")...)
			source, _ := serve(t, path)
			spec := quick("hls-adaptive", "240p")
			if name == "one at the end" {
				spec.HLS.SegmentSeconds = 2
			}

			work := plan(t, probe(t, source), spec)
			require.True(t, work.GetOutput().GetVideo().GetRenditions()[0].GetCopy())

			// A second rendition beside it, smaller than any quality.
			work.Output.Video.Renditions = append(work.Output.Video.Renditions, &tcoderv1.RenditionPlan{
				Name: "120p", Width: 212, Height: 120, VideoBitrateBps: 200_000,
			})

			dir, made := run(t, source, work)
			checkAligned(t, made[0], made[1])
			require.Equal(t, mediatest.FrameTimes(t, path), mediatest.FrameTimes(t, playable(dir, made[0])))

			for _, r := range made {
				mediatest.DecodeClean(t, playable(dir, r))

				last := r.GetSegments()[len(r.GetSegments())-1].GetDuration().AsDuration()
				require.Greater(t, last, 100*time.Millisecond)
			}
		})
	}
}

// TestProbeKeyframes guarantees that a source which can't be cut at its
// keyframes tells of none.
func TestProbeKeyframes(t *testing.T) {
	t.Parallel()

	film := mediatest.Clip(t, mediatest.Film)
	x264 := func(args ...string) []string {
		return append(append([]string{"-i", film, "-t", "4", "-an", "-s", "320x180", "-c:v", "libx264", "-preset", "superfast"}, args...), "-pix_fmt", "yuv420p")
	}

	for name, test := range map[string]struct {
		args []string
		want []uint64
	}{
		"closed groups":      {x264("-g", "48", "-sc_threshold", "0"), []uint64{0, 48}},
		"open groups":        {x264("-bf", "3", "-b_strategy", "0", "-x264-params", "open-gop=1:keyint=48:scenecut=0"), nil},
		"a hole in the time": {x264("-vf", "select='not(between(n,50,70))'", "-fps_mode", "vfr"), nil},
		"cut at the start":   {[]string{"-ss", "1", "-i", film, "-c", "copy"}, nil},
		"a late picture":     {[]string{"-itsoffset", "0.5", "-i", film, "-i", film, "-map", "0:v", "-map", "1:a", "-c", "copy"}, nil},
		"fragmented":         {x264("-movflags", "+frag_keyframe+empty_moov"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := ffmpegMakes(t, filepath.Join(t.TempDir(), "source.mp4"), test.args...)
			source, _ := serve(t, path)
			found := probe(t, source)
			require.Equal(t, test.want, found.GetStreams()[0].GetKeyframes().GetFrames())
		})
	}

	for _, id := range []mediatest.ID{mediatest.TailMoov, mediatest.Film} {
		found := probe(t, clip(t, id))
		require.Equal(t, 2*time.Second, found.GetMaxGop().AsDuration())
		require.EqualValues(t, 168, found.GetStreams()[0].GetKeyframes().GetFrameCount())
		require.True(t, found.GetStreams()[1].GetUntrimmed())
	}
}
