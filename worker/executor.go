package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// Attempt is one assignment, with all that the work may reach.
type Attempt struct {
	Assignment *tcoderv1.Assignment
	// Progress is told how far the work is, without blocking.
	Progress func(*tcoderv1.TaskProgress)
	// Sign gets presigned PUTs for objects below the attempt's folder, in order.
	Sign func(ctx context.Context, objects []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error)
	// SignRead gets presigned GETs for pieces of an AssembleWork, in order.
	SignRead func(ctx context.Context, pieces []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error)

	// Parts does a step of writing an object below the attempt's folder in parts.
	Parts func(ctx context.Context, object *tcoderv1.EncodedObject, step *tcoderv1.PartsStep) (*tcoderv1.SignResponse, error)

	source   *grant
	segments *segmentLog // of what is uploaded
	// dir is the attempt's own folder, removed after it. Set by scratch.
	dir string
	log *slog.Logger
}

// Executor does the work of an attempt. It returns when all that it started
// has ended, soon after ctx has. The report carries no lease yet. An error is
// a *ffmpeg.Fault, the cause of ctx, or something unexpected.
type Executor func(ctx context.Context, a Attempt) (*tcoderv1.TaskReport, error)

// sourceName is what a source is called on the loopback address.
const sourceName = "source"

// mediaWork is the innermost executor: FFmpeg between a source that is read
// and results that are written by presigned URLs.
type mediaWork struct {
	tools  ffmpeg.Tools
	client *http.Client
	pacing transferPacing
}

func (m mediaWork) execute(ctx context.Context, a Attempt) (*tcoderv1.TaskReport, error) {
	work := a.Assignment
	if assemble := work.GetAssemble(); assemble != nil {
		return m.assemble(ctx, a, assemble)
	}

	served, err := openSource(ctx, map[string]content{sourceName: newObject(
		m.client, a.source, int64(work.GetSourceSizeBytes()), work.GetSourceEtag(), m.pacing)}, a.log)
	if err != nil {
		return nil, machineFault("The worker could not open a port for FFmpeg.", err)
	}
	defer served.close()

	source := ffmpeg.Source{
		URL: served.url(sourceName), SizeBytes: int64(work.GetSourceSizeBytes()), TransferError: served.transferError,
	}

	switch kind := work.GetWork().(type) {
	case *tcoderv1.Assignment_Probe:
		result, err := ffmpeg.Probe(ctx, m.tools, ffmpeg.ProbeRequest{
			Source: source, Limits: kind.Probe.GetLimits(), TimeLimit: work.GetTimeLimit().AsDuration(),
		})
		if err != nil {
			return nil, err
		}

		return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Probe{Probe: result}}, nil
	case *tcoderv1.Assignment_Encode:
		renditions, err := m.encode(ctx, a, source, kind.Encode)
		if err != nil {
			return nil, err
		}

		return &tcoderv1.TaskReport{
			End: &tcoderv1.TaskReport_Encode{Encode: &tcoderv1.EncodeResult{Renditions: renditions}},
		}, nil
	default:
		return nil, &ffmpeg.Fault{
			Class:   tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN,
			Reason:  tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE,
			Message: fmt.Sprintf("This worker can't do a task of kind %s.", work.GetKind()),
		}
	}
}

// encode runs FFmpeg and uploads every file as soon as it is finished. Both
// halves end when one fails.
func (m mediaWork) encode(
	ctx context.Context, a Attempt, source ffmpeg.Source, work *tcoderv1.EncodeWork,
) ([]*tcoderv1.EncodedRendition, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	brake := new(ffmpeg.Brake)
	waiting := &backlog{dir: a.dir, brake: brake, log: a.log}
	uploads := m.uploader(a, waiting, func(err error) { cancel(err) }, a.segments.uploaded)

	var (
		uploading sync.WaitGroup
		uploaded  error
	)

	uploading.Go(func() { uploaded = recovered(func() error { return uploads.run(ctx) }) })

	renditions, err := ffmpeg.Encode(ctx, m.tools, ffmpeg.EncodeRequest{
		Source: source, Work: work, Dir: a.dir, TimeLimit: a.Assignment.GetTimeLimit().AsDuration(),
		Brake: brake,
		OnProgress: func(p ffmpeg.Progress) {
			a.Progress(progressOf(a.Assignment.GetLease(), p))
		},
		OnSegments: func(finished []ffmpeg.Segments) {
			a.segments.made(finished)

			for _, s := range finished {
				uploads.add(append([]*tcoderv1.EncodedObject{s.Init}, s.Objects...)...)
			}
		},
	})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause // a failed upload, or what ended the task
		}

		cancel(err)
		uploading.Wait()

		return nil, err
	}

	for _, rendition := range renditions {
		uploads.add(objectsOf(rendition)...)
	}

	uploads.close()
	uploading.Wait()
	a.logScratch(waiting)

	if uploaded != nil {
		return nil, uploaded
	}

	return renditions, verifyUploads(uploads, renditions)
}

// uploader is what takes an attempt's files to the store.
func (m mediaWork) uploader(a Attempt, waiting *backlog, onFailure func(error), onStored func(name string)) *uploader {
	uploads := newUploader(m.client, a.Sign, waiting, m.pacing, onFailure, onStored)
	uploads.maxPut, uploads.step = a.Assignment.GetMaxPutBytes(), a.Parts

	return uploads
}

// logScratch tells how much lay in the attempt's folder at most, and how often
// FFmpeg waited for the store.
func (a Attempt) logScratch(b *backlog) {
	peak, holds := b.told()
	a.log.Info("results are made", "scratch_peak_bytes", peak, "pauses", holds)
}

// verifyUploads checks that what was measured is what was uploaded.
func verifyUploads(uploads *uploader, renditions []*tcoderv1.EncodedRendition) error {
	for _, rendition := range renditions {
		for _, object := range objectsOf(rendition) {
			if size, ok := uploads.sent(object.GetName()); !ok || size != object.GetSizeBytes() {
				return changedFault()
			}
		}
	}

	return nil
}

func objectsOf(rendition *tcoderv1.EncodedRendition) []*tcoderv1.EncodedObject {
	var objects []*tcoderv1.EncodedObject
	if init := rendition.GetInitSegment(); init != nil {
		objects = append(objects, init)
	}

	objects = append(objects, rendition.GetSegments()...)

	if file := rendition.GetFile(); file != nil {
		objects = append(objects, file)
	}

	return objects
}

func progressOf(lease *tcoderv1.LeaseRef, p ffmpeg.Progress) *tcoderv1.TaskProgress {
	return &tcoderv1.TaskProgress{
		Lease:     lease,
		Fraction:  min(max(p.Fraction, 0), 1),
		MediaTime: durationpb.New(p.OutTime),
		Speed:     p.Speed,
		Fps:       p.FPS,
	}
}

// ended returns the cause of ctx if it has ended, err otherwise: FFmpeg and
// net/http only know that they were canceled.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return context.Cause(ctx)
	}

	return err
}
