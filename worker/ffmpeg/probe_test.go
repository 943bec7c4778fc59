package ffmpeg_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// streams are the streams of a kind.
func streams(p *tcoderv1.ProbeResult, kind tcoderv1.StreamKind) []*tcoderv1.StreamInfo {
	return slices.DeleteFunc(slices.Clone(p.GetStreams()), func(s *tcoderv1.StreamInfo) bool { return s.GetKind() != kind })
}

// picture is the only video stream.
func picture(t testing.TB, p *tcoderv1.ProbeResult) *tcoderv1.StreamInfo {
	t.Helper()

	found := streams(p, tcoderv1.StreamKind_STREAM_KIND_VIDEO)
	require.Len(t, found, 1)

	return found[0]
}

func sounds(p *tcoderv1.ProbeResult) []*tcoderv1.StreamInfo {
	return streams(p, tcoderv1.StreamKind_STREAM_KIND_AUDIO)
}

func rational(num, den int64) *tcoderv1.Rational { return &tcoderv1.Rational{Num: num, Den: den} }

// TestProbe guarantees that the plan of each kind of source is made of what
// the source is.
func TestProbe(t *testing.T) {
	t.Parallel()

	for id, test := range map[mediatest.ID]struct {
		duration time.Duration
		check    func(t *testing.T, p *tcoderv1.ProbeResult)
	}{
		mediatest.Film: {7 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()

			v := picture(t, p)
			require.Equal(t, "mov,mp4,m4a,3gp,3g2,mj2", p.GetFormat())
			require.Equal(t, "h264 High 31 yuv420p progressive", strings.Join([]string{v.GetCodec(), v.GetProfile(), "31", v.GetPixelFormat(), v.GetFieldOrder()}, " "))
			require.Equal(t, []uint32{1280, 720, 0}, []uint32{v.GetWidth(), v.GetHeight(), v.GetRotationDegrees()})
			require.Equal(t, rational(24, 1).String(), v.GetFrameRate().String())
			require.EqualValues(t, 168, v.GetFrameCount())
			require.True(t, v.GetHasBFrames() && v.GetDefault())
			require.Nil(t, v.GetSampleAspectRatio())
			a := sounds(p)[0]
			require.Equal(t, "aac LC", a.GetCodec()+" "+a.GetProfile())
			require.Equal(t, []uint32{48_000, 2, 1}, []uint32{a.GetSampleRateHz(), a.GetChannels(), a.GetIndex()})
			require.Nil(t, a.GetFrameRate())
		}},
		mediatest.Rotated: {3 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Contains(t, []uint32{90, 270}, picture(t, p).GetRotationDegrees())
		}},
		mediatest.NoAudio: {3 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) { t.Helper(); require.Empty(t, sounds(p)) }},
		mediatest.AudioOnly: {7 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Len(t, p.GetStreams(), 1)
			require.Len(t, sounds(p), 1)
		}},
		mediatest.Cover: {5 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Len(t, p.GetStreams(), 1, "the cover is no stream")
			require.Equal(t, "mp3", sounds(p)[0].GetCodec())
		}},
		mediatest.ManyStreams: {3 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Len(t, p.GetStreams(), 4)
			require.Equal(t, "eng", sounds(p)[0].GetLanguage())
			require.Equal(t, "deu", sounds(p)[1].GetLanguage())
			require.Equal(t, []bool{true, false}, []bool{sounds(p)[0].GetDefault(), sounds(p)[1].GetDefault()})
			require.Len(t, streams(p, tcoderv1.StreamKind_STREAM_KIND_SUBTITLE), 1)
			require.NotNil(t, picture(t, p).GetDuration(), "Matroska doesn't tell, the packets do")
		}},
		mediatest.HDR10: {time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()

			v := picture(t, p)
			require.Equal(t, "smpte2084 bt2020 bt2020nc yuv420p10le", strings.Join([]string{v.GetColorTransfer(), v.GetColorPrimaries(), v.GetColorSpace(), v.GetPixelFormat()}, " "))
		}},
		mediatest.ProRes: {time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Len(t, streams(p, tcoderv1.StreamKind_STREAM_KIND_UNSPECIFIED), 1, "the timecode")
		}},
		mediatest.Interlaced: {3 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Equal(t, "tt", picture(t, p).GetFieldOrder())
			require.Equal(t, rational(16, 15).String(), picture(t, p).GetSampleAspectRatio().String())
		}},
		mediatest.OffsetStart: {6 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Greater(t, p.GetStartTime().AsDuration(), 900*time.Second)
			require.GreaterOrEqual(t, picture(t, p).GetStartTime().AsDuration(), p.GetStartTime().AsDuration())
		}},
		mediatest.VariableRate: {6 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()

			v := picture(t, p)
			require.NotEqual(t, v.GetFrameRate().String(), v.GetNominalFrameRate().String())
		}},
		mediatest.OneFrame: {time.Second / 24, func(t *testing.T, p *tcoderv1.ProbeResult) { t.Helper(); picture(t, p) }},
		mediatest.GIF: {2 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Equal(t, rational(10, 1).String(), picture(t, p).GetFrameRate().String())
		}},
		mediatest.TailMoov: {7 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) { t.Helper(); picture(t, p) }},
		mediatest.Surround: {3 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.EqualValues(t, 6, sounds(p)[0].GetChannels())
		}},
		mediatest.OddSize: {2 * time.Second, func(t *testing.T, p *tcoderv1.ProbeResult) {
			t.Helper()
			require.Equal(t, []uint32{853, 479}, []uint32{picture(t, p).GetWidth(), picture(t, p).GetHeight()})
		}},
	} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()

			source := clip(t, id)
			found := probe(t, source)
			require.InDelta(t, test.duration.Seconds(), found.GetDuration().AsDuration().Seconds(), 0.2)
			require.EqualValues(t, source.SizeBytes, found.GetSizeBytes())
			require.False(t, slices.ContainsFunc(found.GetStreams(), (*tcoderv1.StreamInfo).GetDamaged))
			test.check(t, found)
		})
	}
}

// fault probes a source that is bad and returns why.
func fault(t testing.TB, source ffmpeg.Source, limits *tcoderv1.InputLimits) *ffmpeg.Fault {
	t.Helper()

	_, err := ffmpeg.Probe(t.Context(), tools(t), ffmpeg.ProbeRequest{Source: source, Limits: limits})
	require.Error(t, err)

	found, ok := errors.AsType[*ffmpeg.Fault](err)
	require.True(t, ok, "%v", err)
	require.NotContains(t, found.Message, "127.0.0.1", "the message is for users")
	require.NotContains(t, found.Message, "@ 0x", "the message is for users")

	return found
}

// TestProbeRefuses guarantees that a source which can't be transcoded is known
// at the probe, as the input's own fault with its reason.
func TestProbeRefuses(t *testing.T) {
	t.Parallel()

	for id, reason := range map[mediatest.ID]tcoderv1.ErrorReason{
		mediatest.Empty:          tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA,
		mediatest.Text:           tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA,
		mediatest.TruncatedIndex: tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED,
		mediatest.TruncatedTail:  tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED,
	} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()

			found := fault(t, clip(t, id), limits())
			require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_INPUT, found.Class)
			require.Equal(t, reason, found.Reason, found.Message)
		})
	}
}

// TestProbeTruncated guarantees that a missing end is found in containers
// that promise a duration, and only there.
func TestProbeTruncated(t *testing.T) {
	t.Parallel()

	for _, id := range []mediatest.ID{mediatest.ManyStreams, mediatest.VP9Opus, mediatest.Cover} {
		t.Run(string(id), func(t *testing.T) {
			t.Parallel()

			content, err := os.ReadFile(mediatest.Clip(t, id))
			require.NoError(t, err)

			path := filepath.Join(t.TempDir(), "half")
			require.NoError(t, os.WriteFile(path, content[:len(content)/2], 0o600))

			source, _ := serve(t, path)
			require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, fault(t, source, limits()).Reason)
		})
	}

	content, err := os.ReadFile(mediatest.Clip(t, mediatest.OffsetStart))
	require.NoError(t, err)

	path := filepath.Join(t.TempDir(), "half.ts")
	require.NoError(t, os.WriteFile(path, content[:len(content)/2], 0o600))

	source, _ := serve(t, path)
	require.Less(t, probe(t, source).GetDuration().AsDuration(), 5*time.Second)
}

// TestProbeZeros guarantees that a file whose media are all zeros, as a broken
// download leaves them, is corrupt.
func TestProbeZeros(t *testing.T) {
	t.Parallel()

	content, err := os.ReadFile(mediatest.Clip(t, mediatest.Film))
	require.NoError(t, err)

	at := bytes.Index(content, []byte("mdat"))
	require.Positive(t, at)
	clear(content[at+4:])

	path := filepath.Join(t.TempDir(), "zeros.mp4")
	require.NoError(t, os.WriteFile(path, content, 0o600))

	source, _ := serve(t, path)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT, fault(t, source, limits()).Reason)
}

// TestProbeZeroTail guarantees that a file whose end was never fetched, though
// its size is right, is known at the probe.
func TestProbeZeroTail(t *testing.T) {
	t.Parallel()

	content, err := os.ReadFile(mediatest.Clip(t, mediatest.Film))
	require.NoError(t, err)
	clear(content[len(content)*2/3:])

	path := filepath.Join(t.TempDir(), "zeros.mp4")
	require.NoError(t, os.WriteFile(path, content, 0o600))

	source, _ := serve(t, path)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, fault(t, source, limits()).Reason)
}

// TestProbeDisguises guarantees that a playlist or a script that calls itself
// a clip makes FFmpeg reach for nothing: not for an address of the worker's
// network, and not for a file.
func TestProbeDisguises(t *testing.T) {
	t.Parallel()

	film, canary := serve(t, mediatest.Clip(t, mediatest.Film))
	secret := mediatest.Clip(t, mediatest.Film)

	mpd := filepath.Join(t.TempDir(), "clip.mp4")
	require.NoError(t, os.WriteFile(mpd, []byte(`<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" `+
		`mediaPresentationDuration="PT9S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">`+
		`<Representation id="1" bandwidth="1"><BaseURL>`+film.URL+`</BaseURL></Representation></AdaptationSet></Period></MPD>`), 0o600))

	for name, path := range map[string]string{
		"playlist over http": mediatest.DisguisedPlaylist(t, film.URL+"?x=.ts"),
		"playlist over file": mediatest.DisguisedPlaylist(t, "file://"+secret),
		"concat script":      mediatest.DisguisedConcat(t, secret),
		"dash manifest":      mpd,
	} {
		source, requests := serve(t, path)
		found := fault(t, source, limits())
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, found.Reason, name)
		require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_INPUT, found.Class, name)
		require.Positive(t, requests.Load(), name)
		require.Zero(t, canary.Load(), name)
	}
}

// TestProbeLimits guarantees that a source beyond a limit is refused as that,
// before anything of it is decoded at length.
func TestProbeLimits(t *testing.T) {
	t.Parallel()

	film, many := clip(t, mediatest.Film), clip(t, mediatest.ManyStreams)

	for _, test := range []struct {
		source ffmpeg.Source
		limit  string
		change func(*tcoderv1.InputLimits)
	}{
		{film, "pixels than the limit, 921599", func(l *tcoderv1.InputLimits) { l.MaxPixels = 1280*720 - 1 }},
		{film, "lasts 7s, the limit is 6s", func(l *tcoderv1.InputLimits) { l.MaxDuration.Seconds = 6 }},
		{film, "24 frames per second, the limit is 23", func(l *tcoderv1.InputLimits) { l.MaxFps = 23 }},
		{many, "4 streams, the limit is 3", func(l *tcoderv1.InputLimits) { l.MaxStreams = 3 }},
	} {
		tight := limits()
		test.change(tight)

		found := fault(t, test.source, tight)
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED, found.Reason, found.Message)
		require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_INPUT, found.Class)
		require.Contains(t, found.Message, test.limit)
	}
}

// TestProbeLyingHeader guarantees that pictures larger than the container says
// are caught too, before they take memory.
func TestProbeLyingHeader(t *testing.T) {
	t.Parallel()

	content, err := os.ReadFile(mediatest.Clip(t, mediatest.Film))
	require.NoError(t, err)

	// The sample entry of the video says 16 x 16.
	at := bytes.Index(content, []byte("avc1"))
	entry := bytes.Index(content[at+4:], []byte("avc1")) // after the brand
	require.Positive(t, entry)

	size := content[at+4+entry+4+24:]
	require.EqualValues(t, 1280, binary.BigEndian.Uint16(size))
	binary.BigEndian.PutUint16(size, 16)
	binary.BigEndian.PutUint16(size[2:], 16)

	path := filepath.Join(t.TempDir(), "liar.mp4")
	require.NoError(t, os.WriteFile(path, content, 0o600))

	source, _ := serve(t, path)
	tight := limits()
	tight.MaxPixels = 640 * 480
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED, fault(t, source, tight).Reason)
}

// TestProbeUnknownDuration guarantees that a duration which no header tells is
// found by reading, as for what browsers record, and one that is a guess is
// replaced by the truth.
func TestProbeUnknownDuration(t *testing.T) {
	t.Parallel()

	film := mediatest.Clip(t, mediatest.Film)

	for name, args := range map[string][]string{
		"live.webm": {"-t", "2", "-i", mediatest.Clip(t, mediatest.VP9Opus), "-c", "copy", "-live", "1", "-f", "webm"},
		"frag.mp4":  {"-t", "2", "-i", film, "-c", "copy", "-movflags", "+frag_keyframe+empty_moov", "-f", "mp4"},
		"plain.aac": {"-t", "2", "-i", film, "-vn", "-c", "copy", "-f", "adts"},
		"plain.mp3": {"-t", "2", "-i", film, "-vn", "-c:a", "libmp3lame", "-q:a", "4", "-write_xing", "0", "-f", "mp3"},
		"live.flv":  {"-t", "2", "-i", film, "-c", "copy", "-flvflags", "no_duration_filesize", "-f", "flv"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), name)
			source, _ := serve(t, ffmpegMakes(t, path, args...))
			first, end := time.Hour, time.Duration(0)

			for _, span := range mediatest.Spans(t, path) {
				first, end = min(first, span.First), max(end, span.End)
			}

			require.InDelta(t, 2, (end - first).Seconds(), 0.4, "the clip itself")
			require.InDelta(t, (end - first).Seconds(), probe(t, source).GetDuration().AsDuration().Seconds(), 0.05)
		})
	}
}

// ffmpegMakes makes a file with FFmpeg and returns its path.
func ffmpegMakes(t testing.TB, path string, args ...string) string {
	t.Helper()

	args = append(append([]string{"-nostdin", "-v", "error", "-y"}, args...), path)
	output, err := exec.CommandContext(t.Context(), tools(t).FFmpeg, args...).CombinedOutput()
	require.NoError(t, err, string(output))

	return path
}

// TestProbeTransfer guarantees that a source which can't be fetched is not
// blamed for it.
func TestProbeTransfer(t *testing.T) {
	t.Parallel()

	film := mediatest.Clip(t, mediatest.Film)
	broken := errors.New("the store is away")

	// Everything ends after the first 100 kB, as if the file did.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := os.ReadFile(film)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)

			return
		}

		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[:100_000]))
	}))
	t.Cleanup(server.Close)

	source := ffmpeg.Source{URL: server.URL, SizeBytes: 1 << 20, TransferError: func() error { return broken }}
	found := fault(t, source, limits())
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, found.Reason)
	require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, found.Class)

	source = ffmpeg.Source{URL: "http://127.0.0.1:1/source", SizeBytes: 1}
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, fault(t, source, limits()).Reason)
}

// TestProbeCancel guarantees that a cancel ends a probe at once and is told as
// a cancel.
func TestProbeCancel(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)

	_, err := ffmpeg.Probe(ctx, tools(t), ffmpeg.ProbeRequest{Source: ffmpeg.Source{URL: server.URL, SizeBytes: 1}})
	require.ErrorIs(t, err, context.Canceled)
}

// TestTools guarantees that a worker knows what its FFmpeg can do, and says so
// when there is none.
func TestTools(t *testing.T) {
	t.Parallel()

	encoders := tools(t).Encoders
	require.Contains(t, encoders, "libx264")
	require.Contains(t, encoders, "aac")
	require.Contains(t, ffmpeg.VideoCodecs(encoders), tcoderv1.VideoCodec_VIDEO_CODEC_H264)
	require.Empty(t, ffmpeg.VideoCodecs([]string{"aac"}))

	filters, err := exec.Command(tools(t).FFmpeg, "-hide_banner", "-filters").Output()
	require.NoError(t, err)
	require.Equal(t, strings.Contains(string(filters), " zscale "), tools(t).Zimg)

	_, err = ffmpeg.Tools{FFmpeg: filepath.Join(t.TempDir(), "ffmpeg")}.Inspect(t.Context())
	missing, ok := errors.AsType[*ffmpeg.Fault](err)
	require.True(t, ok)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_ENCODER_MISSING, missing.Reason)
	require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_MACHINE, missing.Class)
}
