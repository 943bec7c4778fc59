package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// A result above the store's limit of one PUT is written in parts: the worker
// asks for each step as it asks for URLs, and the control plane begins, signs,
// completes or aborts. It remembers nothing of it: an upload's id is of use
// with the key of the lease's own attempt alone. What is never completed nor
// aborted, because its worker died, the sweeper aborts once the job has ended.

const (
	// partsTimeout bounds a step: the store may join many parts for long.
	partsTimeout = 5 * time.Minute
	// usualParts is how many parts an object is cut into where leastPart and what
	// the store takes in one PUT allow that.
	usualParts = 100
	leastPart  = 64 << 20
	mebibyte   = 1 << 20
)

// partSize is the size of every part but the last of an object.
func (s *Service) partSize(sizeBytes int64) int64 {
	even := (sizeBytes/usualParts/mebibyte + 1) * mebibyte
	return min(max(leastPart, even), s.cfg.MaxPutBytes)
}

// takeParts answers a step beside the stream: it asks the store.
func (s *Service) takeParts(ctx context.Context, sess *session, req *tcoderv1.SignRequest) {
	s.beside(ctx, sess, func(ctx context.Context) {
		ctx, cancel := s.whileServing(ctx, partsTimeout)
		defer cancel()
		s.answerSign(ctx, sess, req, s.parts)
	})
}

// parts does one step.
func (s *Service) parts(ctx context.Context, sess *session, req *tcoderv1.SignRequest) (*tcoderv1.SignResponse, *pipeline.Failure) {
	refuse := func(reason pipeline.Reason, message string) (*tcoderv1.SignResponse, *pipeline.Failure) {
		return nil, &pipeline.Failure{Reason: reason, Message: message}
	}
	l := sess.lease(mapper.LeaseRefFromProto(req.GetLease()))
	if l == nil {
		return refuse(pipeline.ReasonLeaseLost, "The worker doesn't hold this lease.")
	}
	output, planned := plannedOutput(l.job, l.task)
	prefix, err := attemptPrefix(l.job, l.task, l.ref)
	if !planned || err != nil || len(req.GetObjects()) != 1 {
		return refuse(pipeline.ReasonOutputInvalid, "This task writes no such object.")
	}
	object := mapper.EncodedObjectFromProto(req.GetObjects()[0])
	step, key := req.GetParts(), prefix+object.Name
	switch {
	case !writable(object):
		return refuse(pipeline.ReasonOutputInvalid, "An object's name, size or type is not allowed.")
	case step.GetUploadId() == "":
		if !sess.book(l, object.SizeBytes, budget(l.job, output)) {
			return refuse(pipeline.ReasonOutputInvalid, "The attempt writes far more than its plan.")
		}
		answer := &tcoderv1.SignResponse{Parts: &tcoderv1.PartsPlan{PartSizeBytes: uint64(s.partSize(object.SizeBytes))}}
		answer.Parts.UploadId, err = s.deps.Out.CreateMultipart(ctx, key, objectstore.MultipartOptions{
			ContentType: object.ContentType, CacheControl: keptByCaches,
		})
		return s.stepped(ctx, sess, l, answer, err)
	case step.GetAbort():
		return s.stepped(ctx, sess, l, &tcoderv1.SignResponse{}, s.deps.Out.AbortMultipart(ctx, key, step.GetUploadId()))
	case len(step.GetEtags()) > 0:
		return s.stepped(ctx, sess, l, &tcoderv1.SignResponse{}, s.completeParts(ctx, l, key, object, step))
	default:
		answer, err := s.signParts(ctx, key, object, step)
		return s.stepped(ctx, sess, l, answer, err)
	}
}

// stepped is the answer to a step, or why there is none.
func (s *Service) stepped(ctx context.Context, sess *session, l *lease, answer *tcoderv1.SignResponse, err error,
) (*tcoderv1.SignResponse, *pipeline.Failure) {
	var wrong *mismatchError
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &wrong):
		return nil, &pipeline.Failure{Reason: pipeline.ReasonOutputInvalid, Message: wrong.Error()}
	case errors.Is(err, errNotHeld):
		return nil, &pipeline.Failure{Reason: pipeline.ReasonLeaseLost, Message: "The worker doesn't hold this lease."}
	}
	sess.log.WarnContext(ctx, "an object can't be written in parts", "task_id", l.ref.TaskID, "error", err)
	reason := pipeline.ReasonTransferFailed
	if transient(err) {
		reason = pipeline.ReasonObjectStoreUnavailable
	}
	return nil, &pipeline.Failure{Reason: reason, Message: "The object can't be written in parts."}
}

// signParts signs PUTs of some parts, each of its exact size.
func (s *Service) signParts(ctx context.Context, key string, o media.EncodedObject, step *tcoderv1.PartsStep) (*tcoderv1.SignResponse, error) {
	size, answer := s.partSize(o.SizeBytes), &tcoderv1.SignResponse{}
	for n := int64(step.GetFirst()); n < int64(step.GetFirst())+int64(step.GetCount()); n++ {
		rest := o.SizeBytes - (n-1)*size
		if n < 1 || rest <= 0 {
			return nil, &mismatchError{o.Name, fmt.Sprintf("has no part %d", n)}
		}
		signed, err := s.deps.Out.PresignPart(ctx, key, step.GetUploadId(), int(n), min(size, rest), s.urlLife())
		if err != nil {
			return nil, err
		}
		answer.Requests = append(answer.Requests, mapper.SignedRequestToProto(signed))
	}
	return answer, nil
}

// errNotHeld says that an attempt is over.
var errNotHeld = errors.New("the attempt is over")

// completeParts makes the object of its parts, if the attempt is still the one
// that may: what an older one completes nobody would refer to, but nobody
// would remove it either. It was completed before if its upload is gone and
// the object is there.
func (s *Service) completeParts(ctx context.Context, l *lease, key string, o media.EncodedObject, step *tcoderv1.PartsStep) error {
	job, err := s.deps.Store.GetJob(ctx, l.job.ID)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(job.Tasks, func(t pipeline.Task) bool {
		n := len(t.Attempts)
		return t.ID == l.ref.TaskID && t.State == pipeline.TaskLeased && n > 0 && t.Attempts[n-1].Number == l.ref.Attempt
	}) {
		return errNotHeld
	}
	parts := make([]objectstore.Part, 0, len(step.GetEtags()))
	for i, etag := range step.GetEtags() {
		parts = append(parts, objectstore.Part{Number: i + 1, ETag: etag})
	}
	err = s.deps.Out.CompleteMultipart(ctx, key, step.GetUploadId(), parts)
	switch {
	case errors.Is(err, objectstore.ErrUploadNotFound):
		return s.verifyObject(ctx, key, o)
	case errors.Is(err, objectstore.ErrInvalidPart):
		return &mismatchError{o.Name, "is not made of these parts"}
	}
	return err
}
