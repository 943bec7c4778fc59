package pool

import (
	"context"
	"errors"
	"fmt"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// takeSegments commits what an attempt has uploaded while it runs, beside the
// stream. It is answered once the store has taken it. If that can't be, the
// worker sends it again. A worker has one report of an attempt under way, and
// says it again meanwhile.
func (s *Service) takeSegments(ctx context.Context, sess *session, r *tcoderv1.SegmentReport) {
	l := sess.lease(mapper.LeaseRefFromProto(r.GetLease()))
	if l != nil && !l.uploads.CompareAndSwap(false, true) {
		return
	}
	taken := s.beside(ctx, sess, func(ctx context.Context) { s.answerSegments(ctx, sess, l, r) })
	if l != nil && !taken {
		l.uploads.Store(false)
	}
}

func (s *Service) answerSegments(ctx context.Context, sess *session, l *lease, r *tcoderv1.SegmentReport) {
	log := sess.log.With("task_id", r.GetLease().GetTaskId(), "attempt", r.GetLease().GetAttempt())
	var verdict pipeline.Verdict
	err := persist(ctx, sess, func(ctx context.Context) error {
		return pipeline.Contain(func() (err error) {
			verdict, err = s.commitSegments(ctx, sess, l, r)
			return err
		})
	})
	if l != nil {
		l.uploads.Store(false) // before the answer, which brings the next
	}
	answer := &tcoderv1.SegmentAck{Lease: r.GetLease(), Sequence: r.GetSequence(), Verdict: mapper.VerdictToProto(verdict)}
	var mismatch *mismatchError
	switch {
	case errors.As(err, &mismatch):
		log.WarnContext(ctx, "segments rejected", "why", err)
		answer.Verdict = tcoderv1.ReportVerdict_REPORT_VERDICT_REJECTED
	case err != nil:
		log.WarnContext(ctx, "segments aren't committed, the worker says it again", "error", err)
		return
	}
	sess.send(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Segments{Segments: answer}})
}

// commitSegments commits segments that are in the store and fit the plan. The
// error is a *mismatchError if they don't.
func (s *Service) commitSegments(ctx context.Context, sess *session, l *lease, r *tcoderv1.SegmentReport) (pipeline.Verdict, error) {
	if l == nil {
		return pipeline.VerdictStale, nil
	}
	output, planned := plannedOutput(l.job, l.task)
	prefix, err := attemptPrefix(l.job, l.task, l.ref)
	if !planned || err != nil {
		return "", &mismatchError{"of the task", "isn't part of an output"}
	}
	commit := pipeline.SegmentCommit{Ref: l.ref, WorkerID: sess.worker.ID, Output: output.Name, Part: l.task.Part}
	var uploaded media.EncodeResult
	for _, m := range r.GetRenditions() {
		u := mapper.UploadedSegmentsFromProto(m)
		if err := media.VerifyUploaded(output, l.task.Part, u); err != nil {
			return "", &mismatchError{"of rendition " + u.Rendition.Name, "doesn't match the plan: " + err.Error()}
		}
		commit.Uploaded = append(commit.Uploaded, u)
		uploaded.Renditions = append(uploaded.Renditions, media.EncodedRendition{InitSegment: &u.Init, Segments: u.Segments})
	}
	if err := s.verifyObjects(ctx, prefix, uploaded); err != nil {
		return "", err
	}
	return s.deps.Store.CommitSegments(ctx, commit)
}

// commitRest commits what a result has beyond what was committed while its
// attempt ran, so that what follows it in time can be played before the job
// is done. A job's only task needs none: all of it is published at once. The
// error is a *mismatchError if what was committed, by another attempt too,
// can't stay as it is.
func (s *Service) commitRest(ctx context.Context, sess *session, job pipeline.Job, task pipeline.Task, ref pipeline.LeaseRef,
	output media.OutputPlan, r media.EncodeResult,
) error {
	if output.Kind != media.KindHLS {
		return nil
	}
	if ref.Attempt > 1 {
		stream, err := s.deps.Store.ReadStream(ctx, job.ID, 0, 0)
		if err != nil {
			return err
		}
		if err := stream.Growth(job.Run).Continues(output.Name, task.Part, r); err != nil {
			return &mismatchError{"of the result", "is not as another attempt has published: " + err.Error()}
		}
	}
	if len(media.Tasks(*job.Plan)) < 2 {
		return nil
	}
	commit := pipeline.SegmentCommit{Ref: ref, WorkerID: sess.worker.ID, Output: output.Name, Part: task.Part}
	for _, e := range r.Renditions {
		commit.Uploaded = append(commit.Uploaded, media.UploadedSegments{
			Rendition: media.RenditionResult{
				Name: e.Result.Name, Codecs: e.Result.Codecs, Width: e.Result.Width, Height: e.Result.Height, FrameRate: e.Result.FrameRate,
			},
			Init: *e.InitSegment, Segments: e.Segments,
		})
	}
	// A stale one is told with the result.
	if _, err := s.deps.Store.CommitSegments(ctx, commit); err != nil {
		return fmt.Errorf("commit segments: %w", err)
	}
	return nil
}
