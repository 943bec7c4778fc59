package ffmpeg_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

var update = flag.Bool("update", false, "write the golden files anew") //nolint:gochecknoglobals // how go test takes flags

// ladder is a typical work: two renditions and sound, as HLS.
func ladder() *tcoderv1.EncodeWork {
	return &tcoderv1.EncodeWork{
		Output: &tcoderv1.OutputPlan{
			Name: "hls", Kind: tcoderv1.OutputKind_OUTPUT_KIND_HLS, SegmentSeconds: 4.004,
			Video: &tcoderv1.VideoPlan{
				Codec: tcoderv1.VideoCodec_VIDEO_CODEC_H264, RateControl: tcoderv1.RateControl_RATE_CONTROL_CAPPED_CRF, Crf: 23,
				EncoderPreset: "veryfast", FrameRate: &tcoderv1.Rational{Num: 24000, Den: 1001}, GopFrames: 48, ExpectedFrames: 297,
				Renditions: []*tcoderv1.RenditionPlan{
					{Name: "1080p", Width: 1920, Height: 1080, VideoBitrateBps: 5_000_000},
					{Name: "720p", Width: 1280, Height: 720, VideoBitrateBps: 2_800_000},
					{Name: "360p", Width: 640, Height: 360, VideoBitrateBps: 800_000},
				},
			},
			Audio: &tcoderv1.AudioPlan{
				Name: "audio", StreamIndex: 1, Codec: tcoderv1.AudioCodec_AUDIO_CODEC_AAC, BitrateBps: 128_000, Channels: 2, SampleRateHz: 48_000,
			},
		},
		Source: &tcoderv1.ProbeResult{
			Format: "mov,mp4,m4a,3gp,3g2,mj2", Duration: durationpb.New(12_415 * time.Millisecond),
			Streams: []*tcoderv1.StreamInfo{
				{Index: 0, Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, PixelFormat: "yuv420p"},
				{Index: 1, Kind: tcoderv1.StreamKind_STREAM_KIND_AUDIO},
			},
		},
		Duration: durationpb.New(12_415 * time.Millisecond),
		Limits:   &tcoderv1.InputLimits{MaxPixels: 36_000_000},
	}
}

// works are the shapes of work, by what is special in them.
func works() map[string]func(*tcoderv1.EncodeWork) {
	mp4 := func(w *tcoderv1.EncodeWork) {
		w.Output.Kind, w.Output.SegmentSeconds = tcoderv1.OutputKind_OUTPUT_KIND_MP4, 0
	}
	single := func(w *tcoderv1.EncodeWork) { w.Output.Video.Renditions = w.GetOutput().GetVideo().GetRenditions()[:1] }

	cut := func(w *tcoderv1.EncodeWork) {
		w.Output.Video.SegmentStarts, w.Output.Video.GopFrames, w.Output.SegmentSeconds = []uint64{0, 100, 200}, 100, 3.995
	}

	return map[string]func(*tcoderv1.EncodeWork){
		"hls-ladder":     func(*tcoderv1.EncodeWork) {},
		"hls-no-zimg":    func(*tcoderv1.EncodeWork) {},
		"hls-yuv-as-rgb": func(w *tcoderv1.EncodeWork) { w.Source.Streams[0].ColorSpace = "gbr" },
		"hls-silent":     func(w *tcoderv1.EncodeWork) { w.Output.Audio = nil },
		"hls-audio-only": func(w *tcoderv1.EncodeWork) { w.Output.Video, w.Output.SegmentSeconds = nil, 4 },
		"hls-copy": func(w *tcoderv1.EncodeWork) {
			single(w)
			w.Output.Video.Renditions[0].Copy, w.Output.Audio.Copy = true, true
			cut(w)
		},
		"hls-copy-top": func(w *tcoderv1.EncodeWork) {
			w.Output.Video.Renditions[0].Copy = true
			cut(w)
		},
		"hls-copy-chunk": func(w *tcoderv1.EncodeWork) {
			w.Output.Video.Renditions, w.Output.Audio = w.GetOutput().GetVideo().GetRenditions()[1:], nil
			w.Output.Chunks = []*tcoderv1.Chunk{{FirstFrame: 100, EndFrame: 297}}
			cut(w)
		},
		"hls-hdr-interlaced": func(w *tcoderv1.EncodeWork) {
			w.Output.Video.Deinterlace, w.Output.Video.ToneMap = true, true
			w.Source.Streams[0].ColorTransfer, w.Source.Streams[0].ColorPrimaries = "arib-std-b67", "bt2020"
		},
		"hls-late-mono": func(w *tcoderv1.EncodeWork) {
			w.Source.Streams[1].StartTime = durationpb.New(400 * time.Millisecond)
			w.Output.Audio.Channels, w.Output.Audio.Language = 1, "deu"
		},
		"hls-measured-duration": func(w *tcoderv1.EncodeWork) {
			w.Source.Format = "mpegts"
			w.Limits.MaxDuration = durationpb.New(time.Hour)
		},
		"hls-chunk": func(w *tcoderv1.EncodeWork) {
			w.Output.Audio = nil
			w.Output.Chunks = []*tcoderv1.Chunk{{FirstFrame: 96, EndFrame: 192}}
		},
		"hls-steady-chunk": func(w *tcoderv1.EncodeWork) {
			w.Output.Audio = nil
			w.Output.Chunks = []*tcoderv1.Chunk{{FirstFrame: 96, EndFrame: 192, KeyframeTime: durationpb.New(3333 * time.Millisecond)}}
			w.Source.Streams[0].FrameRate, w.Source.Streams[0].Steady = &tcoderv1.Rational{Num: 24000, Den: 1001}, true
		},
		"hls-hevc": func(w *tcoderv1.EncodeWork) { w.Output.Video.Codec = tcoderv1.VideoCodec_VIDEO_CODEC_HEVC },
		"hls-av1":  func(w *tcoderv1.EncodeWork) { w.Output.Video.Codec = tcoderv1.VideoCodec_VIDEO_CODEC_AV1 },
		"mp4-qualities": func(w *tcoderv1.EncodeWork) {
			mp4(w)
			w.Output.Video.RateControl = tcoderv1.RateControl_RATE_CONTROL_BITRATE
		},
		"mp4-remux": func(w *tcoderv1.EncodeWork) {
			mp4(w)
			single(w)
			w.Output.Video.Renditions[0].Copy, w.Output.Audio.Copy = true, true
		},
		"mp4-copy-largest": func(w *tcoderv1.EncodeWork) {
			mp4(w)
			w.Output.Video.Renditions[0].Copy = true
		},
		"mp4-audio-only": func(w *tcoderv1.EncodeWork) {
			mp4(w)
			w.Output.Video = nil
		},
		"mp4-rgb": func(w *tcoderv1.EncodeWork) {
			mp4(w)
			w.Output.Audio = nil
			w.Source.Streams[0].PixelFormat = "bgra"
		},
	}
}

// TestEncodeArgs guarantees that no argument of FFmpeg changes unseen.
func TestEncodeArgs(t *testing.T) {
	t.Parallel()

	for name, change := range works() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			work := ladder()
			change(work)
			before := proto.Clone(work)

			args, err := ffmpeg.EncodeArgs(work, "http://127.0.0.1:9000/source", ffmpeg.Tools{Zimg: name != "hls-no-zimg"})
			require.NoError(t, err)
			require.True(t, proto.Equal(before, work), "the work was changed")

			path := filepath.Join("testdata", name+".golden")
			text := strings.Join(args, "\n") + "\n"

			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			}

			golden, err := os.ReadFile(path)
			require.NoError(t, err, "run go test ./worker/ffmpeg -run TestEncodeArgs -update")
			require.Equal(t, string(golden), text)
		})
	}
}

// TestEncodeArgsRefuses guarantees that a work which FFmpeg can't do as
// planned, or whose names are more than names, becomes an error and no command.
func TestEncodeArgsRefuses(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*tcoderv1.OutputPlan){
		"no kind":           func(o *tcoderv1.OutputPlan) { o.Kind = 0 },
		"nothing":           func(o *tcoderv1.OutputPlan) { o.Video, o.Audio = nil, nil },
		"no segments":       func(o *tcoderv1.OutputPlan) { o.SegmentSeconds = 0 },
		"no renditions":     func(o *tcoderv1.OutputPlan) { o.Video.Renditions = nil },
		"no codec":          func(o *tcoderv1.OutputPlan) { o.Video.Codec = 0 },
		"odd width":         func(o *tcoderv1.OutputPlan) { o.Video.Renditions[0].Width = 1921 },
		"no height":         func(o *tcoderv1.OutputPlan) { o.Video.Renditions[0].Height = 0 },
		"no cadence":        func(o *tcoderv1.OutputPlan) { o.Video.FrameRate = nil },
		"no keyframes":      func(o *tcoderv1.OutputPlan) { o.Video.GopFrames = 0 },
		"unaligned copy":    func(o *tcoderv1.OutputPlan) { o.Video.Renditions[0].Copy = true },
		"a path":            func(o *tcoderv1.OutputPlan) { o.Video.Renditions[0].Name = "../720p" },
		"an option":         func(o *tcoderv1.OutputPlan) { o.Video.Renditions[0].Name = "-y" },
		"a pattern":         func(o *tcoderv1.OutputPlan) { o.Video.Renditions[0].Name = "%d" },
		"a hidden folder":   func(o *tcoderv1.OutputPlan) { o.Audio.Name = ".." },
		"no name for sound": func(o *tcoderv1.OutputPlan) { o.Audio.Name = "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			work := ladder()
			change(work.GetOutput())

			_, err := ffmpeg.EncodeArgs(work, "http://127.0.0.1:9000/source", ffmpeg.Tools{})
			require.Error(t, err)
		})
	}
}

// TestEncodeArgsReadRate guarantees that a film isn't read at full speed for its
// sound alone, and everything else is.
func TestEncodeArgsReadRate(t *testing.T) {
	t.Parallel()

	sound, recording := ladder(), ladder()
	sound.Output.Video, recording.Output.Video = nil, nil
	recording.Source.Streams = recording.GetSource().GetStreams()[1:]

	for work, slow := range map[*tcoderv1.EncodeWork]bool{ladder(): false, sound: true, recording: false} {
		args, err := ffmpeg.EncodeArgs(work, "http://127.0.0.1:9000/source", ffmpeg.Tools{Threads: 2})
		require.NoError(t, err)
		require.Equal(t, slow, slices.Contains(args, "-readrate"))
	}
}
