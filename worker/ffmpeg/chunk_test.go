package ffmpeg_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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

// TestEncodeChunks guarantees that a picture made in chunks is the picture
// made whole: the same frames with the same timestamps, the same segments
// and the same init segment, over every seam, whatever the source's cadence,
// its fields, its own keyframes and where its clock starts, in every codec.
func TestEncodeChunks(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		id      mediatest.ID
		codec   media.VideoCodec
		encoder string
	}{
		"film":          {mediatest.Film, media.H264, "libx264"},
		"high rate":     {mediatest.HighRate, media.H264, "libx264"},
		"variable rate": {mediatest.VariableRate, media.H264, "libx264"},
		"rotated":       {mediatest.Rotated, media.H264, "libx264"},
		"vp9":           {mediatest.VP9Opus, media.H264, "libx264"},
		"prores":        {mediatest.ProRes, media.H264, "libx264"},
		"fields":        {mediatest.Interlaced, media.H264, "libx264"},
		"to hevc":       {mediatest.Film, media.HEVC, "libx265"},
		"to av1":        {mediatest.Film, media.AV1, "libsvtav1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if !slices.Contains(tools(t).Encoders, test.encoder) {
				t.Skip("FFmpeg lacks " + test.encoder)
			}

			path := mediatest.Clip(t, test.id)
			if test.id == mediatest.Interlaced { // only an index lets a source be cut
				path = ffmpegMakes(t, filepath.Join(t.TempDir(), "fields.mkv"), "-i", path, "-c", "copy")
			}

			source, _ := serve(t, path)
			whole := fineWork(t, source, test.codec)
			wholeDir, made := chunk(t, source, whole)

			segment := uint64(whole.GetOutput().GetVideo().GetGopFrames())
			frames := whole.GetOutput().GetVideo().GetExpectedFrames()

			var joined []*tcoderv1.EncodedObject

			dirs := []string{}

			// The second chunk is shorter than the others, as the last may be.
			for first, end := uint64(0), segment; first < frames; first, end = end, end+2*segment {
				part := proto.CloneOf(whole)
				part.Output.Chunks = []*tcoderv1.Chunk{{FirstFrame: first, EndFrame: min(end, frames), KeyframeTime: keyframeBefore(whole, first)}}

				dir, got := chunk(t, source, part)
				require.Equal(t, read(t, wholeDir, made.GetInitSegment()), read(t, dir, got.GetInitSegment()), "init segment of chunk at %d", first)

				for _, object := range got.GetSegments() {
					joined = append(joined, object)
					dirs = append(dirs, dir)
				}
			}

			require.Len(t, joined, len(made.GetSegments()))

			one := bytes.NewBuffer(read(t, wholeDir, made.GetInitSegment()))
			many := bytes.NewBuffer(read(t, wholeDir, made.GetInitSegment()))

			for i, object := range made.GetSegments() {
				require.Equal(t, object.GetName(), joined[i].GetName())
				require.Equal(t, object.GetDuration().AsDuration(), joined[i].GetDuration().AsDuration(), object.GetName())
				one.Write(read(t, wholeDir, object))
				many.Write(read(t, dirs[i], joined[i]))
			}

			checkSame(t, one.Bytes(), many.Bytes())
		})
	}
}

// keyframeBefore is when the last keyframe that is no later than a frame is
// shown; nil if that isn't known.
func keyframeBefore(work *tcoderv1.EncodeWork, frame uint64) *durationpb.Duration {
	rate := work.GetOutput().GetVideo().GetFrameRate()
	at := float64(frame) * float64(rate.GetDen()) / float64(rate.GetNum())

	for _, s := range work.GetSource().GetStreams() {
		table := s.GetKeyframes()
		start := s.GetStartTime().AsDuration() - work.GetSource().GetStartTime().AsDuration()

		for _, tick := range slices.Backward(table.GetTicks()) {
			key := start.Seconds() + float64(tick)/float64(table.GetTimescale())
			if key <= at+0.001 && s.GetKind() == tcoderv1.StreamKind_STREAM_KIND_VIDEO {
				return durationpb.New(time.Duration(key * float64(time.Second)))
			}
		}
	}

	return nil
}

// fineWork is the work of one small rendition at a quality that tells frames
// apart, with short segments.
func fineWork(t *testing.T, source ffmpeg.Source, codec media.VideoCodec) *tcoderv1.EncodeWork {
	t.Helper()

	spec := quick("hls", "240p")
	spec.Video.Codec = codec
	spec.Video.GOPSeconds, spec.HLS.SegmentSeconds = 0.5, 0.5
	work := plan(t, probe(t, source), spec)
	work.Output.Audio = nil
	work.Output.Video.Crf = 4
	work.Output.Video.Renditions[0].VideoBitrateBps = 50_000_000

	return work
}

// chunk encodes a work of one rendition.
func chunk(t *testing.T, source ffmpeg.Source, work *tcoderv1.EncodeWork) (string, *tcoderv1.EncodedRendition) {
	t.Helper()

	dir := t.TempDir()
	made, err := ffmpeg.Encode(t.Context(), tools(t), ffmpeg.EncodeRequest{Source: source, Work: work, Dir: dir, TimeLimit: time.Minute})
	require.NoError(t, err)
	require.Len(t, made, 1)

	return dir, made[0]
}

func read(t *testing.T, dir string, object *tcoderv1.EncodedObject) []byte {
	t.Helper()

	data, err := os.ReadFile(filepath.Join(dir, object.GetName()))
	require.NoError(t, err)

	return data
}

// checkSame compares two streams frame by frame: timestamps are equal, and no
// frame looks like another one than its twin.
func checkSame(t *testing.T, one, many []byte) {
	t.Helper()

	dir := t.TempDir()
	for name, data := range map[string][]byte{"one.mp4": one, "many.mp4": many} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}

	stamps := func(name string) string {
		out, err := exec.CommandContext(t.Context(), "ffprobe", "-v", "error", "-show_entries", "packet=pts,duration,flags",
			"-of", "csv=p=0", filepath.Join(dir, name)).Output()
		require.NoError(t, err)

		return string(out)
	}
	require.Equal(t, stamps("one.mp4"), stamps("many.mp4"))

	stats := filepath.Join(dir, "psnr.log")
	out, err := exec.CommandContext(t.Context(), "ffmpeg", "-v", "error", "-i", filepath.Join(dir, "one.mp4"), "-i", filepath.Join(dir, "many.mp4"),
		"-lavfi", fmt.Sprintf("psnr=stats_file=%s", stats), "-f", "null", "-").CombinedOutput()
	require.NoError(t, err, "%s", out)

	log, err := os.ReadFile(stats)
	require.NoError(t, err)

	// What the two encodes differ by is far above, another frame far below.
	const leastDB = 38

	for n, match := range regexp.MustCompile(`psnr_avg:(\S+)`).FindAllSubmatch(log, -1) {
		if string(match[1]) == "inf" {
			continue
		}

		db, err := strconv.ParseFloat(string(match[1]), 64)
		require.NoError(t, err)
		require.Greater(t, db, float64(leastDB), "frame %d", n)
	}
}

// TestEncodeChunkRefused guarantees that a range that can't be one of the
// plan is refused before FFmpeg runs.
func TestEncodeChunkRefused(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*tcoderv1.OutputPlan){
		"empty":           func(o *tcoderv1.OutputPlan) { o.Chunks[0].EndFrame = o.GetChunks()[0].GetFirstFrame() },
		"beyond the end":  func(o *tcoderv1.OutputPlan) { o.Chunks[0].EndFrame = o.GetVideo().GetExpectedFrames() + 1 },
		"between":         func(o *tcoderv1.OutputPlan) { o.Chunks[0].FirstFrame++ },
		"between cuts":    func(o *tcoderv1.OutputPlan) { o.Video.SegmentStarts = []uint64{0, 100, 200} },
		"with the sound":  func(o *tcoderv1.OutputPlan) { o.Audio = &tcoderv1.AudioPlan{Name: "audio"} },
		"of a file":       func(o *tcoderv1.OutputPlan) { o.Kind = tcoderv1.OutputKind_OUTPUT_KIND_MP4 },
		"more than one":   func(o *tcoderv1.OutputPlan) { o.Chunks = append(o.Chunks, o.GetChunks()[0]) },
		"without picture": func(o *tcoderv1.OutputPlan) { o.Audio, o.Video = &tcoderv1.AudioPlan{Name: "audio"}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			work := ladder()
			work.Output.Audio = nil
			work.Output.Chunks = []*tcoderv1.Chunk{{FirstFrame: 96, EndFrame: 192}}
			_, err := ffmpeg.EncodeArgs(work, "http://127.0.0.1:1/source", ffmpeg.Tools{})
			require.NoError(t, err)

			change(work.GetOutput())
			_, err = ffmpeg.EncodeArgs(work, "http://127.0.0.1:1/source", ffmpeg.Tools{})
			require.Error(t, err)
		})
	}
}
