package celltest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker"
)

// Worker is a worker of the cell.
type Worker struct {
	*worker.Worker

	Runs   chan *Run  // what it was given to do, where the test does it
	Ended  chan error // what Run returned
	cancel context.CancelCauseFunc
}

// Run is one attempt that the test does in FFmpeg's place.
type Run struct {
	worker.Attempt

	// Context ends when the worker gives the attempt up.
	Context context.Context //nolint:containedctx // the test looks at what the attempt sees
	result  chan result
}

type result struct {
	report *tcoderv1.TaskReport
	err    error
}

// Lease is the attempt's.
func (r *Run) Lease() *tcoderv1.LeaseRef { return r.Assignment.GetLease() }

// Finish ends the attempt with what it was to make.
func (r *Run) Finish(t testing.TB) {
	t.Helper()

	report, err := Make(r.Context, r.Attempt)
	require.NoError(t, err)
	r.result <- result{report: report}
}

// Report ends the attempt with what the test says of it.
func (r *Run) Report(report *tcoderv1.TaskReport) { r.result <- result{report: report} }

// Fail ends the attempt with an error.
func (r *Run) Fail(err error) { r.result <- result{err: err} }

// Worker starts a worker that knows the named replicas. Unless the change says
// otherwise, the test does its work: see Worker.Runs.
func (c *Cell) Worker(t testing.TB, id string, replicas []string, change ...func(*worker.Config)) *Worker {
	t.Helper()

	w := &Worker{Runs: make(chan *Run, 100), Ended: make(chan error, 1)}
	config := worker.Config{
		WorkerID: id, ScratchDir: t.TempDir(), Logger: c.Log, Dial: c.Network.Dialer(id),
		Execute: func(ctx context.Context, a worker.Attempt) (*tcoderv1.TaskReport, error) {
			run := &Run{Attempt: a, Context: ctx, result: make(chan result, 1)}
			w.Runs <- run

			select {
			case result := <-run.result:
				return result.report, result.err
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		},
	}

	for _, name := range replicas {
		config.Servers = append(config.Servers, "http://"+name)
	}

	for _, f := range change {
		f(&config)
	}

	var err error

	w.Worker, err = worker.New(config)
	require.NoError(t, err)

	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	w.cancel = cancel

	running(t, w.Kill, func() { w.Ended <- w.Run(ctx) })

	return w
}

// Kill ends the worker at once; its control plane hears the end of the stream.
func (w *Worker) Kill() { w.cancel(context.Canceled) }

// Pace returns work that takes a time by itself, and tells progress.
func Pace(probe, encode time.Duration) worker.Executor {
	const steps = 4

	return func(ctx context.Context, a worker.Attempt) (*tcoderv1.TaskReport, error) {
		takes := probe
		if a.Assignment.GetEncode() != nil {
			takes = encode
		}

		tick := time.NewTicker(takes / steps)
		defer tick.Stop()

		for i := range steps {
			select {
			case <-tick.C:
				a.Progress(&tcoderv1.TaskProgress{Lease: a.Assignment.GetLease(), Fraction: float64(i+1) / steps})
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}

		return Make(ctx, a)
	}
}

// Make makes what an attempt is to make of a silent film of ten seconds.
func Make(ctx context.Context, a worker.Attempt) (*tcoderv1.TaskReport, error) {
	if a.Assignment.GetEncode() == nil {
		return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Probe{Probe: Probed()}}, nil
	}

	made := encoded(a.Assignment.GetEncode())

	// Objects lies where an object is put as soon as its URL is signed.
	for objects := range slices.Chunk(objectsOf(made), 100) {
		if _, err := a.Sign(ctx, objects); err != nil {
			return nil, err
		}
	}

	return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Encode{Encode: made}}, nil
}

const filmDuration = 10 * time.Second

// Probed is what a probe finds of the film.
func Probed() *tcoderv1.ProbeResult {
	rate := &tcoderv1.Rational{Num: 25, Den: 1}

	return &tcoderv1.ProbeResult{
		Format: "mov,mp4,m4a,3gp,3g2,mj2", Duration: durationpb.New(filmDuration), SizeBytes: 1000,
		Streams: []*tcoderv1.StreamInfo{{
			Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, Codec: "vp9", Width: 640, Height: 360, PixelFormat: "yuv420p",
			FrameRate: rate, NominalFrameRate: rate, Duration: durationpb.New(filmDuration),
		}},
	}
}

// encoded is two segments of nothing much for each rendition.
func encoded(work *tcoderv1.EncodeWork) *tcoderv1.EncodeResult {
	half := durationpb.New(work.GetDuration().AsDuration() / 2)
	object := func(name, contentType string, d *durationpb.Duration) *tcoderv1.EncodedObject {
		return &tcoderv1.EncodedObject{Name: name, SizeBytes: uint64(len(name)), ContentType: contentType, Duration: d}
	}
	made := &tcoderv1.EncodeResult{}

	for _, r := range work.GetOutput().GetVideo().GetRenditions() {
		made.Renditions = append(made.Renditions, &tcoderv1.EncodedRendition{
			Result: &tcoderv1.RenditionResult{
				Name: r.GetName(), Codecs: "avc1.64001f", Width: r.GetWidth(), Height: r.GetHeight(),
				FrameRate: work.GetOutput().GetVideo().GetFrameRate(), Duration: work.GetDuration(),
				SizeBytes: 100, AverageBitrateBps: 80, PeakBitrateBps: 100, FrameCount: 250,
			},
			InitSegment: object(r.GetName()+"/init.mp4", "video/mp4", nil),
			Segments: []*tcoderv1.EncodedObject{
				object(r.GetName()+"/00000.m4s", "video/iso.segment", half),
				object(r.GetName()+"/00001.m4s", "video/iso.segment", half),
			},
		})
	}

	return made
}

func objectsOf(made *tcoderv1.EncodeResult) []*tcoderv1.EncodedObject {
	var objects []*tcoderv1.EncodedObject

	for _, r := range made.GetRenditions() {
		objects = append(append(objects, r.GetInitSegment()), r.GetSegments()...)
	}

	return objects
}
