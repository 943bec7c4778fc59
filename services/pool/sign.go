package pool

import (
	"context"
	"regexp"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// signedSlackBytes is what an attempt may write beyond what its plan suggests.
const signedSlackBytes = 256 << 20

// keptByCaches is for objects that never change: another attempt writes others.
const keptByCaches = "max-age=31536000, immutable"

// objectName is what may lie in an attempt's folder: no segment of a name
// begins with a dot or a dash. The API's validation says the same.
var objectName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,3}$`)

// writable reports whether an attempt may write an object of that name, size
// and type.
func writable(o media.EncodedObject) bool {
	switch o.ContentType {
	case "video/mp4", "audio/mp4", "video/iso.segment":
	default:
		return false
	}
	return len(o.Name) <= 200 && objectName.MatchString(o.Name) &&
		o.SizeBytes > 0 && o.SizeBytes <= objectstore.MaxPutSizeBytes*objectstore.MaxParts
}

// sign answers a worker's request for URLs: to write objects, for a lease that
// it holds, below its attempt's folder; or to read what an assemble task reads.
func (s *Service) sign(ctx context.Context, sess *session, req *tcoderv1.SignRequest) {
	if req.GetParts() != nil {
		s.takeParts(ctx, sess, req)
		return
	}
	s.answerSign(ctx, sess, req, func(ctx context.Context, sess *session, req *tcoderv1.SignRequest) (*tcoderv1.SignResponse, *pipeline.Failure) {
		requests, refused := s.signObjects(ctx, sess, req)
		return &tcoderv1.SignResponse{Requests: requests}, refused
	})
}

// answerSign answers a request by what sign makes of it.
func (s *Service) answerSign(ctx context.Context, sess *session, req *tcoderv1.SignRequest,
	sign func(context.Context, *session, *tcoderv1.SignRequest) (*tcoderv1.SignResponse, *pipeline.Failure),
) {
	var answer *tcoderv1.SignResponse
	var refused *pipeline.Failure
	if err := pipeline.Contain(func() error {
		answer, refused = sign(ctx, sess, req)
		return nil
	}); err != nil {
		sess.log.ErrorContext(ctx, "a request to write can't be answered", "task_id", req.GetLease().GetTaskId(), "error", err)
		refused = &pipeline.Failure{Reason: pipeline.ReasonInternal, Message: "The objects can't be signed."}
	}
	if refused != nil {
		sess.log.WarnContext(ctx, "worker may not write", "task_id", req.GetLease().GetTaskId(),
			"attempt", req.GetLease().GetAttempt(), "reason", string(refused.Reason), "why", refused.Message)
		answer = &tcoderv1.SignResponse{Refused: mapper.FailureToProto(refused)}
	}
	answer.RequestId = req.GetRequestId()
	sess.send(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Sign{Sign: answer}})
}

func (s *Service) signObjects(ctx context.Context, sess *session, req *tcoderv1.SignRequest) ([]*tcoderv1.SignedRequest, *pipeline.Failure) {
	l := sess.lease(mapper.LeaseRefFromProto(req.GetLease()))
	if l == nil {
		return nil, &pipeline.Failure{Reason: pipeline.ReasonLeaseLost, Message: "The worker doesn't hold this lease."}
	}
	if req.GetRead() {
		return s.signPieces(ctx, sess, l, req)
	}
	output, planned := plannedOutput(l.job, l.task)
	prefix, err := attemptPrefix(l.job, l.task, l.ref)
	if !planned || err != nil {
		return nil, &pipeline.Failure{Reason: pipeline.ReasonOutputInvalid, Message: "This task writes nothing."}
	}
	objects := make([]media.EncodedObject, 0, len(req.GetObjects()))
	var total int64
	for _, o := range req.GetObjects() {
		object := mapper.EncodedObjectFromProto(o)
		if !writable(object) || object.SizeBytes > s.cfg.MaxPutBytes {
			return nil, &pipeline.Failure{Reason: pipeline.ReasonOutputInvalid, Message: "An object's name, size or type is not allowed."}
		}
		objects = append(objects, object)
		total += object.SizeBytes
	}
	if !sess.book(l, total, budget(l.job, output)) {
		return nil, &pipeline.Failure{Reason: pipeline.ReasonOutputInvalid, Message: "The attempt writes far more than its plan."}
	}
	requests := make([]*tcoderv1.SignedRequest, 0, len(objects))
	for _, o := range objects {
		signed, err := s.deps.Out.PresignPut(ctx, objectstore.PutRequest{
			Key: prefix + o.Name, SizeBytes: o.SizeBytes, ContentType: o.ContentType, CacheControl: keptByCaches, Expires: s.urlLife(),
		})
		if err != nil {
			sess.log.ErrorContext(ctx, "object can't be signed", "task_id", l.ref.TaskID, "error", err)
			return nil, &pipeline.Failure{Reason: pipeline.ReasonInternal, Message: "The objects can't be signed."}
		}
		requests = append(requests, mapper.SignedRequestToProto(signed))
	}
	return requests, nil
}

// book counts bytes against what an attempt may write; false beyond it.
func (s *session) book(l *lease, sizeBytes, budget int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.signed+sizeBytes > budget {
		return false
	}
	l.signed += sizeBytes
	return true
}

// budget is what an attempt may write: several times its plan, since uploads
// are repeated and bitrates are caps of averages. A copy is as large as its
// source.
func budget(job pipeline.Job, output media.OutputPlan) int64 {
	bitrate := 0
	if output.Video != nil {
		for _, r := range output.Video.Renditions {
			bitrate += r.VideoBitrateBPS
		}
	}
	if output.Audio != nil {
		bitrate += output.Audio.BitrateBPS
	}
	planned := int64(float64(bitrate) / 8 * job.Plan.Duration.Seconds())
	return signedSlackBytes + 4*(planned+job.Source.SizeBytes)
}
