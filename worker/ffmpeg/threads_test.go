package ffmpeg_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestThreads guarantees that tasks share a worker's processors, and the
// encoders of a task its share by the size of their pictures.
func TestThreads(t *testing.T) {
	t.Parallel()

	for _, test := range []struct{ slots, cpus, threads int }{
		{1, 1, 1}, {1, 2, 2}, {1, 16, 16}, {2, 2, 1}, {2, 4, 2}, {3, 8, 2}, {4, 4, 1}, {8, 4, 1},
	} {
		require.Equal(t, test.threads, ffmpeg.ThreadsPerSlot(test.slots, test.cpus), "%+v", test)
	}

	valuesOf := func(work *tcoderv1.EncodeWork, threads int, option string) (values []string) {
		args, err := ffmpeg.EncodeArgs(work, "http://127.0.0.1:9000/source", ffmpeg.Tools{Threads: threads})
		require.NoError(t, err)

		for i, arg := range args {
			if arg == option {
				values = append(values, args[i+1])
			}
		}

		return values
	}
	values := func(threads int, option string) []string { return valuesOf(ladder(), threads, option) }

	for threads, shares := range map[int][]string{1: {"1", "1", "1", "1"}, 2: {"2", "2", "2", "1"}, 4: {"4", "4", "2", "1"}, 8: {"8", "8", "3", "1"}} {
		require.Equal(t, shares, values(threads, "-threads"), "the source's, and each rendition's")

		half := []string{strconv.Itoa(max(1, threads/2))}
		require.Equal(t, half, values(threads, "-filter_threads"))
		require.Equal(t, half, values(threads, "-filter_complex_threads"))

		for _, set := range []func(*tcoderv1.VideoPlan){
			func(v *tcoderv1.VideoPlan) { v.ToneMap = true }, func(v *tcoderv1.VideoPlan) { v.Deinterlace = true },
		} {
			dear := ladder()
			set(dear.GetOutput().GetVideo())
			require.Equal(t, []string{strconv.Itoa(threads)}, valuesOf(dear, threads, "-filter_complex_threads"))
		}
	}

	require.Empty(t, values(0, "-threads"))

	for codec, bound := range map[tcoderv1.VideoCodec]string{
		tcoderv1.VideoCodec_VIDEO_CODEC_HEVC: ":pools=2", tcoderv1.VideoCodec_VIDEO_CODEC_AV1: ":lp=2",
	} {
		work := ladder()
		work.Output.Video.Codec = codec
		args, err := ffmpeg.EncodeArgs(work, "http://127.0.0.1:9000/source", ffmpeg.Tools{Threads: 2})
		require.NoError(t, err)
		require.Equal(t, 2, strings.Count(strings.Join(args, " "), bound))
	}
}

// TestMemoryPerSlot guarantees that all slots together leave some of the memory
// there is, and that none has too little to work or more than a source is worth.
func TestMemoryPerSlot(t *testing.T) {
	t.Parallel()

	const gib = 1 << 30

	for _, test := range []struct {
		slots         int
		machine, most uint64
	}{
		{1, 0, 6 * gib},
		{1, 5 * gib, 4 * gib},
		{2, 5 * gib, 2 * gib},
		{1, 2*gib + gib/2, 2 * gib},
		{1, 64 * gib, 6 * gib},
		{4, 20 * gib, 4 * gib},
		{8, 2 * gib, gib / 2},
		{64, 1, gib / 2},
	} {
		require.Equal(t, test.most, ffmpeg.MemoryPerSlot(test.slots, test.machine), "%+v", test)
	}
}

// TestThreadsEncode guarantees that every encoder takes its bound.
func TestThreadsEncode(t *testing.T) {
	t.Parallel()

	source := clip(t, mediatest.OneFrame)

	for _, codec := range []media.VideoCodec{media.H264, media.HEVC, media.AV1} {
		bounded := tools(t)
		bounded.Threads = 1
		work := plan(t, probe(t, source), media.Spec{Video: media.VideoSettings{Codec: codec}})
		_, err := ffmpeg.Encode(t.Context(), bounded, ffmpeg.EncodeRequest{Source: source, Work: work, Dir: t.TempDir(), TimeLimit: time.Minute})
		require.NoError(t, err, codec)
	}
}
