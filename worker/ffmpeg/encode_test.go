package ffmpeg_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// quick is a spec of small renditions that encode fast. B-frames are on, as
// in real presets: they are what makes timestamps hard.
func quick(preset string, qualities ...string) media.Spec {
	return media.Spec{Preset: preset, Qualities: qualities, Video: media.VideoSettings{EncoderPreset: "superfast"}}
}

// playable is the file or playlist that plays a rendition.
func playable(dir string, r *tcoderv1.EncodedRendition) string {
	if r.GetFile() != nil {
		return filepath.Join(dir, r.GetFile().GetName())
	}

	return filepath.Join(dir, r.GetResult().GetName(), "index.m3u8")
}

// checkRenditions checks with ffprobe what holds for every encode: clean to
// decode, measured right, H.264 High 4:2:0 of the planned size and cadence
// with square pixels, equal frames in all rungs, keyframes where they belong,
// AAC of 48 kHz, all starting at zero and as long as the source.
func checkRenditions(t *testing.T, work *tcoderv1.EncodeWork, dir string, renditions []*tcoderv1.EncodedRendition) {
	t.Helper()

	video := work.GetOutput().GetVideo()
	rate := video.GetFrameRate()

	for i, plan := range video.GetRenditions() {
		made := renditions[i]
		require.Equal(t, plan.GetName(), made.GetResult().GetName())

		path := playable(dir, made)
		mediatest.DecodeClean(t, path)

		info := mediatest.Probe(t, path)
		require.Len(t, info.Video, 1)

		v := info.Video[0]
		require.Equal(t, "h264 High yuv420p", v.Codec+" "+v.Profile+" "+v.PixelFormat)
		require.Equal(t, []int{int(plan.GetWidth()), int(plan.GetHeight()), 0}, []int{v.Width, v.Height, v.RotationDegrees})
		require.Contains(t, []string{"1:1", "", "N/A"}, v.SampleAspectRatio)
		require.Contains(t, []string{"progressive", ""}, v.FieldOrder)
		require.InDelta(t, float64(rate.GetNum())/float64(rate.GetDen()), v.FrameRate.Float(), 0.001)

		result := made.GetResult()
		require.EqualValues(t, v.Frames, result.GetFrameCount())
		require.Equal(t, renditions[0].GetResult().GetFrameCount(), result.GetFrameCount(), "rungs have the same frames")
		require.Equal(t, []uint32{plan.GetWidth(), plan.GetHeight()}, []uint32{result.GetWidth(), result.GetHeight()})
		require.Regexp(t, `^avc1\.6400[0-9a-f]{2}(,mp4a\.40\.2)?$`, result.GetCodecs())
		require.False(t, result.GetCopied())

		frame := float64(rate.GetDen()) / float64(rate.GetNum())
		span := mediatest.Spans(t, path)[v.Index]
		require.Zero(t, span.First)
		require.InDelta(t, float64(video.GetExpectedFrames())*frame, span.End.Seconds(), frame+0.002)
		require.InDelta(t, result.GetFrameCount(), span.End.Seconds()/frame, 0.01)

		for n, at := range mediatest.KeyframeTimes(t, path) {
			require.InDelta(t, float64(n)*float64(video.GetGopFrames())*frame, at.Seconds(), 0.001, "keyframe %d", n)
		}
	}

	audio := work.GetOutput().GetAudio()
	if audio == nil {
		for _, r := range renditions {
			require.Empty(t, mediatest.Probe(t, playable(dir, r)).Audio, "no phantom sound")
		}

		return
	}

	path := playable(dir, renditions[len(renditions)-1])
	mediatest.DecodeClean(t, path)

	info := mediatest.Probe(t, path)
	require.Len(t, info.Audio, 1)
	require.Equal(t, fmt.Sprintf("aac LC 48000 %d", audio.GetChannels()),
		fmt.Sprintf("%s %s %d %d", info.Audio[0].Codec, info.Audio[0].Profile, info.Audio[0].SampleRateHz, info.Audio[0].Channels))
	// In HLS the encoder's priming, which players drop, is 1024 samples before 0.
	require.InDelta(t, 0, mediatest.Spans(t, path)[info.Audio[0].Index].First.Seconds(), 0.022)
}

// TestEncodeSources guarantees that sources of every kind come out right as
// HLS renditions.
func TestEncodeSources(t *testing.T) {
	t.Parallel()

	for id, size := range map[mediatest.ID]string{
		mediatest.Rotated:      "240x426",
		mediatest.Portrait:     "240x426",
		mediatest.VariableRate: "426x240",
		mediatest.HighRate:     "426x240",
		mediatest.NoAudio:      "426x240",
		mediatest.OddSize:      "428x240",
		mediatest.VP9Opus:      "426x240",
		mediatest.ManyStreams:  "426x240",
		mediatest.Surround:     "426x240",
		mediatest.Deep444:      "426x240",
		mediatest.HDR10:        "426x240",
		mediatest.ProRes:       "426x240",
		mediatest.Interlaced:   "320x240",
		mediatest.OffsetStart:  "426x240",
		mediatest.OneFrame:     "426x240",
		mediatest.GIF:          "320x180",
	} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()

			work, dir, renditions := encode(t, clip(t, id), quick("hls-adaptive", "240p"))
			checkRenditions(t, work, dir, renditions)

			result := renditions[0].GetResult()
			require.Equal(t, size, fmt.Sprintf("%dx%d", result.GetWidth(), result.GetHeight()))
		})
	}
}

// TestEncodeMP4 guarantees the same of MP4 files at several qualities, made in
// one process.
func TestEncodeMP4(t *testing.T) {
	t.Parallel()

	for _, id := range []mediatest.ID{mediatest.Rotated, mediatest.ManyStreams, mediatest.OneFrame} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()

			work, dir, renditions := encode(t, clip(t, id), quick("web-optimized", "360p", "240p"))
			require.Len(t, renditions, 2)
			checkRenditions(t, work, dir, renditions)
		})
	}
}

// TestEncodeColorSpace guarantees that a source whose colors call themselves
// something else than they are is encoded, through every scaler.
func TestEncodeColorSpace(t *testing.T) {
	t.Parallel()

	for space, matrix := range map[string]string{"rgb": "0", "unspecified": "2", "reserved": "3"} {
		t.Run(space, func(t *testing.T) {
			t.Parallel()

			path := ffmpegMakes(t, filepath.Join(t.TempDir(), "colors.mp4"), "-t", "2", "-i", mediatest.Clip(t, mediatest.Film),
				"-c", "copy", "-an", "-bsf:v", "h264_metadata=matrix_coefficients="+matrix)
			source, _ := serve(t, path)
			work, dir, renditions := encode(t, source, quick("hls-adaptive", "360p", "240p"))
			require.Len(t, renditions, 2)
			checkRenditions(t, work, dir, renditions)
		})
	}
}

// TestEncodeLadder guarantees that all rungs are really encoded, with equal
// segment edges and a keyframe at each, that sound is a rendition of its own,
// and that what is measured is what is on disk.
func TestEncodeLadder(t *testing.T) {
	t.Parallel()

	work, dir, renditions := encode(t, clip(t, mediatest.Film), quick("hls-adaptive", "480p", "360p", "240p"))
	checkRenditions(t, work, dir, renditions)
	require.Len(t, renditions, 4)

	for i, r := range renditions {
		result := r.GetResult()

		var (
			sum   time.Duration
			bytes uint64
		)

		for n, s := range r.GetSegments() {
			require.Equal(t, fmt.Sprintf("%s/%05d.m4s", result.GetName(), n), s.GetName())
			require.Equal(t, "video/iso.segment", s.GetContentType())

			info, err := os.Stat(filepath.Join(dir, s.GetName()))
			require.NoError(t, err)
			require.EqualValues(t, info.Size(), s.GetSizeBytes())

			sum += s.GetDuration().AsDuration()
			bytes += s.GetSizeBytes()
		}

		require.InDelta(t, result.GetDuration().AsDuration().Seconds(), sum.Seconds(), 1e-6)
		require.Equal(t, result.GetSizeBytes(), bytes)
		require.InDelta(t, 7, sum.Seconds(), 0.05)
		require.InDelta(t, float64(bytes)*8/sum.Seconds(), float64(result.GetAverageBitrateBps()), 2)
		require.GreaterOrEqual(t, result.GetPeakBitrateBps(), result.GetAverageBitrateBps())

		if result.GetName() == "audio" {
			require.Equal(t, "audio/mp4", r.GetInitSegment().GetContentType())
			require.Equal(t, "mp4a.40.2", result.GetCodecs())
			require.Nil(t, result.GetFrameRate())

			continue
		}

		require.Equal(t, "video/mp4", r.GetInitSegment().GetContentType())
		require.Equal(t, rational(24, 1).String(), result.GetFrameRate().String())
		require.Len(t, r.GetSegments(), 2)
		require.Equal(t, 4*time.Second, r.GetSegments()[0].GetDuration().AsDuration())

		if i > 0 {
			require.Less(t, result.GetAverageBitrateBps(), renditions[i-1].GetResult().GetAverageBitrateBps())
		}
	}
}

// TestEncodeSync guarantees that picture and sound stay together through every
// packaging: what starts together in the source does so in the result.
func TestEncodeSync(t *testing.T) {
	t.Parallel()

	source := clip(t, mediatest.FlashBeep)

	check := func(t *testing.T, path string) {
		t.Helper()

		beats := mediatest.Beats(t, path)
		require.Len(t, beats, 5)

		for i, beat := range beats {
			require.InDelta(t, float64(i+1), beat.Flash.Seconds(), 0.022)
			require.InDelta(t, 0, beat.Offset().Seconds(), 0.030, "beat %d", i)
		}
	}

	t.Run("hls", func(t *testing.T) {
		t.Parallel()

		_, dir, _ := encode(t, source, quick("hls-adaptive", "240p"))
		master := filepath.Join(dir, "master.m3u8")
		require.NoError(t, os.WriteFile(master, []byte(strings.Join([]string{
			"#EXTM3U", "#EXT-X-VERSION:7",
			`#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="audio",DEFAULT=YES,URI="audio/index.m3u8"`,
			`#EXT-X-STREAM-INF:BANDWIDTH=1000000,CODECS="avc1.640015,mp4a.40.2",AUDIO="a"`, "240p/index.m3u8",
		}, "\n")+"\n"), 0o600))
		check(t, master)
	})
	t.Run("mp4", func(t *testing.T) {
		t.Parallel()

		_, dir, renditions := encode(t, source, quick("web-optimized", "240p"))
		check(t, playable(dir, renditions[0]))
	})
	t.Run("late sound", func(t *testing.T) {
		t.Parallel()

		// A stream whose sound begins 0.4 s after the picture: beats stay where they are.
		path := ffmpegMakes(t, filepath.Join(t.TempDir(), "late.ts"), "-i", mediatest.Clip(t, mediatest.FlashBeep),
			"-ss", "0.4", "-i", mediatest.Clip(t, mediatest.FlashBeep), "-filter_complex", "[1:a]asetpts=PTS+0.4/TB[a]",
			"-map", "0:v", "-map", "[a]", "-c:v", "copy", "-c:a", "aac")
		late, _ := serve(t, path)
		_, dir, renditions := encode(t, late, quick("web-optimized", "240p"))
		check(t, playable(dir, renditions[0]))
	})
	t.Run("copy", func(t *testing.T) {
		t.Parallel()

		_, dir, renditions := encode(t, source, media.Spec{Preset: "default"})
		require.True(t, renditions[0].GetResult().GetCopied())
		check(t, playable(dir, renditions[0]))
	})
}

// TestEncodeCopy guarantees that a source which fits becomes a faststart MP4
// without a generation being lost, and an HLS rendition likewise.
func TestEncodeCopy(t *testing.T) {
	t.Parallel()

	source := clip(t, mediatest.TailMoov)

	t.Run("mp4", func(t *testing.T) {
		t.Parallel()

		work, dir, renditions := encode(t, source, media.Spec{Preset: "default"})
		require.True(t, work.GetOutput().GetVideo().GetRenditions()[0].GetCopy() && work.GetOutput().GetAudio().GetCopy())
		require.Len(t, renditions, 1)

		result := renditions[0].GetResult()
		require.True(t, result.GetCopied())
		require.EqualValues(t, 168, result.GetFrameCount())
		require.Equal(t, "avc1.640028,mp4a.40.2", result.GetCodecs())
		require.Equal(t, "720p.mp4", renditions[0].GetFile().GetName())
		require.Equal(t, "video/mp4", renditions[0].GetFile().GetContentType())

		path := playable(dir, renditions[0])
		mediatest.DecodeClean(t, path)

		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Less(t, strings.Index(string(content), "moov"), strings.Index(string(content), "mdat"), "faststart")
		require.EqualValues(t, len(content), renditions[0].GetFile().GetSizeBytes())
	})
	t.Run("hls", func(t *testing.T) {
		t.Parallel()

		work := plan(t, probe(t, source), quick("hls", "720p"))
		work.Output.Video.Renditions[0].Copy, work.Output.Audio.Copy = true, true
		dir := t.TempDir()

		renditions, err := ffmpeg.Encode(t.Context(), tools(t), ffmpeg.EncodeRequest{Source: source, Work: work, Dir: dir})
		require.NoError(t, err)
		require.Len(t, renditions, 2)
		require.Len(t, renditions[0].GetSegments(), 2)
		require.True(t, renditions[0].GetResult().GetCopied())

		for _, r := range renditions {
			mediatest.DecodeClean(t, playable(dir, r))
		}
	})
}

// TestEncodeSound guarantees that sources of sound alone come out as sound
// alone, also those with a cover picture.
func TestEncodeSound(t *testing.T) {
	t.Parallel()

	for _, id := range []mediatest.ID{mediatest.AudioOnly, mediatest.Cover} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()

			work, dir, renditions := encode(t, clip(t, id), media.Spec{Preset: "hls-adaptive"})
			require.Len(t, renditions, 1)
			checkRenditions(t, work, dir, renditions)
			require.Equal(t, "audio/init.mp4", renditions[0].GetInitSegment().GetName())

			_, dir, renditions = encode(t, clip(t, id), media.Spec{Preset: "default"})
			require.Len(t, renditions, 1)
			require.Equal(t, "audio.m4a", renditions[0].GetFile().GetName())
			require.Equal(t, "audio/mp4", renditions[0].GetFile().GetContentType())
			require.Zero(t, renditions[0].GetResult().GetFrameCount())
			mediatest.DecodeClean(t, playable(dir, renditions[0]))
		})
	}
}

// TestEncodeCodecs guarantees that HEVC and AV1 are made, and named as
// browsers want it, where FFmpeg has them.
func TestEncodeCodecs(t *testing.T) {
	t.Parallel()

	for codec, test := range map[media.VideoCodec][2]string{
		media.HEVC: {"libx265", `^hvc1\.1\.6\.L[0-9]+\.90$`}, media.AV1: {"libsvtav1", `^av01\.0\.0[0-9]M\.08$`},
	} {
		t.Run(string(codec), func(t *testing.T) {
			t.Parallel()

			if !slices.Contains(tools(t).Encoders, test[0]) {
				t.Skip("FFmpeg lacks " + test[0])
			}

			spec := quick("hls", "240p")
			spec.Video.Codec = codec
			work, dir, renditions := encode(t, clip(t, mediatest.NoAudio), spec)
			require.Regexp(t, test[1], renditions[0].GetResult().GetCodecs())
			require.Equal(t, work.GetOutput().GetVideo().GetExpectedFrames(), renditions[0].GetResult().GetFrameCount())
			mediatest.DecodeClean(t, playable(dir, renditions[0]))

			frame := 1 / 24.0
			for n, at := range mediatest.KeyframeTimes(t, playable(dir, renditions[0])) {
				require.InDelta(t, float64(n)*float64(work.GetOutput().GetVideo().GetGopFrames())*frame, at.Seconds(), 0.001)
			}
		})
	}
}

// TestEncodeChangesMidway guarantees that a stream which changes its size and
// its channels in the middle, as broadcasts do, keeps its cadence and length.
func TestEncodeChangesMidway(t *testing.T) {
	t.Parallel()

	dir, film := t.TempDir(), mediatest.Clip(t, mediatest.Film)
	common := []string{"-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "-f", "mpegts"}
	first := ffmpegMakes(t, filepath.Join(dir, "1.ts"), append([]string{"-t", "2", "-i", film, "-vf", "scale=426:240", "-ac", "2"}, common...)...)
	second := ffmpegMakes(t, filepath.Join(dir, "2.ts"),
		append([]string{"-ss", "2", "-t", "2", "-i", film, "-vf", "scale=640:360", "-ac", "1", "-output_ts_offset", "2"}, common...)...)

	var joined []byte

	for _, path := range []string{first, second} {
		content, err := os.ReadFile(path)
		require.NoError(t, err)

		joined = append(joined, content...)
	}

	path := filepath.Join(dir, "both.ts")
	require.NoError(t, os.WriteFile(path, joined, 0o600))

	source, _ := serve(t, path)
	_, made, renditions := encode(t, source, quick("hls-adaptive", "240p"))

	for _, r := range renditions {
		mediatest.DecodeClean(t, playable(made, r))
		require.InDelta(t, 4.05, r.GetResult().GetDuration().AsDuration().Seconds(), 0.15)
	}
}
