package worker

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// folder is where the control plane lets an attempt write.
const folder = "/out/hls/t0a1/"

// workBundle is the real work, between a store and a control plane that signs.
type workBundle struct {
	store   *store
	source  string // path of the source in the store
	content []byte
	grant   *grant
	journal *journal
	scratch string
	execute Executor

	mu       sync.Mutex
	progress []*tcoderv1.TaskProgress
	asked    int // objects that were signed
	// onSign may answer a request for URLs instead of the control plane.
	onSign func(objects []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error)
	log    *slog.Logger
}

func setupWork(t *testing.T, clip string) *workBundle {
	t.Helper()

	content, err := os.ReadFile(clip)
	require.NoError(t, err)

	b := &workBundle{store: newStore(t), source: sourcePath, content: content, scratch: t.TempDir()}
	b.store.put(b.source, content)
	b.grant = newGrant(b.store.signGet(b.source))

	tools, err := ffmpeg.Find()
	require.NoError(t, err)

	pacing := testPacing()
	pacing.stall, pacing.patience = 5*time.Second, 5*time.Second

	journal, log := newJournal()
	b.journal = journal
	b.log = log
	b.execute = decorate(&room{disk: b.scratch}, mediaWork{tools: tools, client: b.store.client(t), pacing: pacing}.execute)

	t.Cleanup(func() {
		left, err := os.ReadDir(b.scratch)
		require.NoError(t, err)
		require.Empty(t, left, "an attempt leaves no files")
		require.NotContains(t, journal.String(), secret, "no log holds a signature")
	})

	return b
}

// do runs an assignment to its report.
func (b *workBundle) do(t *testing.T, ctx context.Context, assignment *tcoderv1.Assignment) *tcoderv1.TaskReport {
	t.Helper()

	report, err := b.run(ctx, assignment)
	require.NoError(t, err)
	require.Equal(t, assignment.GetLease(), report.GetLease())

	return report
}

func (b *workBundle) run(ctx context.Context, assignment *tcoderv1.Assignment) (*tcoderv1.TaskReport, error) {
	return b.execute(ctx, Attempt{
		Assignment: assignment,
		source:     b.grant,
		segments:   newSegmentLog(func() {}),
		Progress: func(p *tcoderv1.TaskProgress) {
			b.mu.Lock()
			defer b.mu.Unlock()

			b.progress = append(b.progress, p)
		},
		Sign:     b.sign,
		SignRead: b.signRead,
		log:      b.log,
	})
}

func (b *workBundle) sign(
	_ context.Context, objects []*tcoderv1.EncodedObject,
) ([]*tcoderv1.SignedRequest, error) {
	b.mu.Lock()
	b.asked += len(objects)
	onSign := b.onSign
	b.mu.Unlock()

	if onSign != nil {
		if requests, err := onSign(objects); requests != nil || err != nil {
			return requests, err
		}
	}

	requests := make([]*tcoderv1.SignedRequest, 0, len(objects))
	for _, object := range objects {
		requests = append(requests, b.store.signPut(folder+object.GetName(), object))
	}

	return requests, nil
}

// signRead signs what an encode has left in the store.
func (b *workBundle) signRead(
	_ context.Context, pieces []*tcoderv1.EncodedObject,
) ([]*tcoderv1.SignedRequest, error) {
	requests := make([]*tcoderv1.SignedRequest, 0, len(pieces))
	for _, piece := range pieces {
		requests = append(requests, b.store.signGet(folder+piece.GetName()))
	}

	return requests, nil
}

func (b *workBundle) assignment() *tcoderv1.Assignment {
	return &tcoderv1.Assignment{
		Lease:           &tcoderv1.LeaseRef{TaskId: "job-0", Attempt: 1},
		JobId:           "job",
		SourceSizeBytes: uint64(len(b.content)),
		SourceEtag:      b.store.etags[b.source],
		TimeLimit:       durationpb.New(time.Minute),
	}
}

func (b *workBundle) probe() *tcoderv1.Assignment {
	assignment := b.assignment()
	assignment.Kind = tcoderv1.TaskKind_TASK_KIND_PROBE
	assignment.Work = &tcoderv1.Assignment_Probe{Probe: &tcoderv1.ProbeWork{}}

	return assignment
}

// encode is two renditions and the sound of mediatest.Film, as HLS or MP4.
func (b *workBundle) encode(kind tcoderv1.OutputKind) *tcoderv1.Assignment {
	length := durationpb.New(7 * time.Second)
	assignment := b.assignment()
	assignment.Kind = tcoderv1.TaskKind_TASK_KIND_ENCODE
	assignment.Work = &tcoderv1.Assignment_Encode{Encode: &tcoderv1.EncodeWork{
		Duration: length,
		Source: &tcoderv1.ProbeResult{
			Format: "mov,mp4,m4a,3gp,3g2,mj2", Duration: length,
			Streams: []*tcoderv1.StreamInfo{
				{
					Index: 0, Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, Codec: "h264", Width: 1280, Height: 720,
					FrameRate: &tcoderv1.Rational{Num: 24, Den: 1}, PixelFormat: "yuv420p", Duration: length,
				},
				{
					Index: 1, Kind: tcoderv1.StreamKind_STREAM_KIND_AUDIO, Codec: "aac", SampleRateHz: 48000, Channels: 2,
					Duration: length,
				},
			},
		},
		Output: &tcoderv1.OutputPlan{
			Name: "hls", Kind: kind, SegmentSeconds: 1,
			Video: &tcoderv1.VideoPlan{
				Codec: tcoderv1.VideoCodec_VIDEO_CODEC_H264, RateControl: tcoderv1.RateControl_RATE_CONTROL_CAPPED_CRF,
				Crf: 30, EncoderPreset: "ultrafast", FrameRate: &tcoderv1.Rational{Num: 24, Den: 1}, GopFrames: 24,
				Renditions: []*tcoderv1.RenditionPlan{
					{Name: "360p", Width: 640, Height: 360, VideoBitrateBps: 800_000},
					{Name: "240p", Width: 426, Height: 240, VideoBitrateBps: 400_000},
				},
			},
			Audio: &tcoderv1.AudioPlan{
				Name: "audio", StreamIndex: 1, Codec: tcoderv1.AudioCodec_AUDIO_CODEC_AAC, BitrateBps: 96_000,
				Channels: 2, SampleRateHz: 48000,
			},
		},
	}}

	return assignment
}

// requireStored checks that the store holds all that a report lists, of the
// right size.
func (b *workBundle) requireStored(t *testing.T, report *tcoderv1.TaskReport) []*tcoderv1.EncodedObject {
	t.Helper()
	require.Nil(t, report.GetFault(), "%s", b.journal)

	var objects []*tcoderv1.EncodedObject
	for _, rendition := range report.GetEncode().GetRenditions() {
		objects = append(objects, objectsOf(rendition)...)
	}

	for _, object := range objects {
		content, ok := b.store.get(folder + object.GetName())
		require.True(t, ok, object.GetName())
		require.Len(t, content, int(object.GetSizeBytes()), object.GetName())
		require.Equal(t, object.GetContentType(), b.store.typeOf(folder+object.GetName()), object.GetName())
	}

	return objects
}

// play checks that a rendition plays from what the store holds.
func (b *workBundle) play(t *testing.T, rendition *tcoderv1.EncodedRendition) {
	t.Helper()

	path := filepath.Join(t.TempDir(), "whole.mp4")

	file, err := os.Create(path)
	require.NoError(t, err)

	for _, object := range objectsOf(rendition) {
		content, _ := b.store.get(folder + object.GetName())
		_, err = file.Write(content)
		require.NoError(t, err)
	}

	require.NoError(t, file.Close())
	mediatest.DecodeClean(t, path)
}
