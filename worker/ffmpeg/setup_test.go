package ffmpeg_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tools(t testing.TB) ffmpeg.Tools {
	t.Helper()

	found, err := inspected()
	require.NoError(t, err)

	return found
}

// inspected is what a worker finds in $PATH.
//
//nolint:gochecknoglobals // it doesn't change
var inspected = sync.OnceValues(func() (ffmpeg.Tools, error) {
	found, err := ffmpeg.Find()
	if err != nil {
		return ffmpeg.Tools{}, err
	}

	return found.Inspect(context.Background())
})

// serve gives a file as a source, and counts the requests that it gets.
func serve(t testing.TB, path string) (ffmpeg.Source, *atomic.Int64) {
	t.Helper()

	var requests atomic.Int64

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeFile(w, r, path)
	}))
	t.Cleanup(server.Close)

	info, err := os.Stat(path)
	require.NoError(t, err)

	return ffmpeg.Source{URL: server.URL + "/source", SizeBytes: info.Size()}, &requests
}

func limits() *tcoderv1.InputLimits {
	const pixels = 36_000_000

	return &tcoderv1.InputLimits{MaxPixels: pixels, MaxDuration: durationpb.New(time.Hour), MaxFps: 240, MaxStreams: 32}
}

// probe probes a clip that is good.
func probe(t testing.TB, source ffmpeg.Source) *tcoderv1.ProbeResult {
	t.Helper()

	result, err := ffmpeg.Probe(t.Context(), tools(t), ffmpeg.ProbeRequest{Source: source, Limits: limits()})
	require.NoError(t, err)

	return result
}

// encode probes a source, plans a preset for it and encodes each output. It
// returns the first output's work, folder and renditions.
func encode(t testing.TB, source ffmpeg.Source, spec media.Spec) (*tcoderv1.EncodeWork, string, []*tcoderv1.EncodedRendition) {
	t.Helper()

	work := plan(t, probe(t, source), spec)
	dir := t.TempDir()

	renditions, err := ffmpeg.Encode(t.Context(), tools(t), ffmpeg.EncodeRequest{
		Source: source, Work: work, Dir: dir, TimeLimit: time.Minute,
	})
	require.NoError(t, err)

	return work, dir, renditions
}

// plan plans the first output of a spec.
func plan(t testing.TB, found *tcoderv1.ProbeResult, spec media.Spec) *tcoderv1.EncodeWork {
	t.Helper()

	resolved, err := media.Resolve(spec)
	require.NoError(t, err)

	planned, err := media.MakePlan(domainProbe(found), resolved, media.Limits{}, 1)
	require.NoError(t, err)
	require.NotEmpty(t, planned.Outputs)

	return &tcoderv1.EncodeWork{
		Output: protoOutput(planned.Outputs[0]), Source: found,
		Duration: durationpb.New(planned.Duration), Limits: limits(),
	}
}

func clip(t testing.TB, id mediatest.ID) ffmpeg.Source {
	t.Helper()

	source, _ := serve(t, mediatest.Clip(t, id))

	return source
}

func domainProbe(p *tcoderv1.ProbeResult) media.Probe {
	kinds := map[tcoderv1.StreamKind]media.StreamKind{
		tcoderv1.StreamKind_STREAM_KIND_UNSPECIFIED: media.StreamOther, tcoderv1.StreamKind_STREAM_KIND_VIDEO: media.StreamVideo,
		tcoderv1.StreamKind_STREAM_KIND_AUDIO: media.StreamAudio, tcoderv1.StreamKind_STREAM_KIND_SUBTITLE: media.StreamSubtitle,
	}
	probe := media.Probe{
		Format: p.GetFormat(), Duration: p.GetDuration().AsDuration(), StartTime: p.GetStartTime().AsDuration(),
		SizeBytes: int64(p.GetSizeBytes()),
	}

	for _, s := range p.GetStreams() {
		probe.Streams = append(probe.Streams, media.Stream{
			Index: int(s.GetIndex()), Kind: kinds[s.GetKind()], Codec: s.GetCodec(), Profile: s.GetProfile(), Level: int(s.GetLevel()),
			Width: int(s.GetWidth()), Height: int(s.GetHeight()), RotationDegrees: int(s.GetRotationDegrees()),
			SampleAspectRatio: domainRational(s.GetSampleAspectRatio()), FrameRate: domainRational(s.GetFrameRate()),
			NominalFrameRate: domainRational(s.GetNominalFrameRate()), PixelFormat: s.GetPixelFormat(),
			ColorTransfer: s.GetColorTransfer(), FieldOrder: s.GetFieldOrder(), SampleRateHz: int(s.GetSampleRateHz()),
			Channels: int(s.GetChannels()), StartTime: s.GetStartTime().AsDuration(), Duration: s.GetDuration().AsDuration(),
			FrameCount: int64(s.GetFrameCount()), Language: s.GetLanguage(), Default: s.GetDefault(),
			BitrateBPS: int64(s.GetBitrateBps()), Keyframes: domainKeyframes(s.GetKeyframes()), Untrimmed: s.GetUntrimmed(), Steady: s.GetSteady(),
			Damaged: s.GetDamaged(),
		})
	}

	return probe
}

func domainKeyframes(k *tcoderv1.KeyframeTable) *media.KeyframeTable {
	if k == nil {
		return nil
	}

	table := &media.KeyframeTable{
		Timescale: int64(k.GetTimescale()), FrameCount: int64(k.GetFrameCount()), FrameRate: domainRational(k.GetFrameRate()),
		LeadTicks: int64(k.GetLeadTicks()),
	}
	for i, frame := range k.GetFrames() {
		table.Frames, table.Ticks = append(table.Frames, int64(frame)), append(table.Ticks, int64(k.GetTicks()[i]))
	}

	return table
}

func domainRational(r *tcoderv1.Rational) media.Rational {
	return media.Rational{Num: r.GetNum(), Den: r.GetDen()}
}

func protoOutput(o media.OutputPlan) *tcoderv1.OutputPlan {
	kinds := map[media.OutputKind]tcoderv1.OutputKind{
		media.KindHLS: tcoderv1.OutputKind_OUTPUT_KIND_HLS, media.KindMP4: tcoderv1.OutputKind_OUTPUT_KIND_MP4,
	}
	output := &tcoderv1.OutputPlan{Name: o.Name, Kind: kinds[o.Kind], SegmentSeconds: o.SegmentSeconds}

	for _, c := range o.Chunks {
		output.Chunks = append(output.Chunks, &tcoderv1.Chunk{FirstFrame: uint64(c.First), EndFrame: uint64(c.End)})
	}

	if v := o.Video; v != nil {
		codecs := map[media.VideoCodec]tcoderv1.VideoCodec{
			media.H264: tcoderv1.VideoCodec_VIDEO_CODEC_H264, media.HEVC: tcoderv1.VideoCodec_VIDEO_CODEC_HEVC,
			media.AV1: tcoderv1.VideoCodec_VIDEO_CODEC_AV1,
		}
		control := map[media.RateControl]tcoderv1.RateControl{
			media.CappedCRF: tcoderv1.RateControl_RATE_CONTROL_CAPPED_CRF, media.Bitrate: tcoderv1.RateControl_RATE_CONTROL_BITRATE,
		}
		output.Video = &tcoderv1.VideoPlan{
			StreamIndex: uint32(v.StreamIndex), Codec: codecs[v.Codec], RateControl: control[v.RateControl], Crf: uint32(v.CRF),
			EncoderPreset: v.EncoderPreset, FrameRate: &tcoderv1.Rational{Num: v.FrameRate.Num, Den: v.FrameRate.Den},
			GopFrames: uint32(v.GOPFrames), Deinterlace: v.Deinterlace, ToneMap: v.ToneMap, ExpectedFrames: uint64(v.ExpectedFrames),
		}

		for _, frame := range v.SegmentStarts {
			output.Video.SegmentStarts = append(output.Video.SegmentStarts, uint64(frame))
		}

		for _, r := range v.Renditions {
			output.Video.Renditions = append(output.Video.Renditions, &tcoderv1.RenditionPlan{
				Name: r.Name, Width: uint32(r.Width), Height: uint32(r.Height), VideoBitrateBps: uint32(r.VideoBitrateBPS), Copy: r.Copy,
			})
		}
	}

	if a := o.Audio; a != nil {
		output.Audio = &tcoderv1.AudioPlan{
			Name: a.Name, StreamIndex: uint32(a.StreamIndex), Codec: tcoderv1.AudioCodec_AUDIO_CODEC_AAC, BitrateBps: uint32(a.BitrateBPS),
			Channels: uint32(a.Channels), SampleRateHz: uint32(a.SampleRateHz), Copy: a.Copy, Language: a.Language,
		}
	}

	return output
}

func portOf(t testing.TB, address string) uint16 {
	t.Helper()

	parsed, err := url.Parse(address)
	require.NoError(t, err)

	port, err := strconv.ParseUint(parsed.Port(), 10, 16)
	require.NoError(t, err)

	return uint16(port)
}
