package worker

import (
	"context"
	"errors"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// signCall is a request for URLs on its way to the control plane and back. It
// outlives streams: it is sent on each until it is answered.
type signCall struct {
	task    *heldTask
	objects []*tcoderv1.EncodedObject
	read    bool                        // to read them; else to write
	parts   *tcoderv1.PartsStep         // to write the one in parts
	answer  chan *tcoderv1.SignResponse // takes one
}

// request is how it is asked for under a number.
func (c *signCall) request(id uint64) *tcoderv1.SignRequest {
	return &tcoderv1.SignRequest{RequestId: id, Lease: c.task.lease, Objects: c.objects, Read: c.read, Parts: c.parts}
}

// refuse answers in the control plane's place, which has no more to say to the task.
func (c *signCall) refuse() {
	c.answer <- &tcoderv1.SignResponse{Refused: &tcoderv1.Failure{
		Reason: tcoderv1.ErrorReason_ERROR_REASON_LEASE_LOST, Message: "The task is no longer this worker's.",
	}}
}

// signRefusedError is the control plane's no to a request for URLs.
type signRefusedError struct {
	failure *tcoderv1.Failure
}

// Error tells the reason.
func (r *signRefusedError) Error() string {
	return "uploads were not signed: " + r.failure.GetReason().String()
}

// passing tells whether the same request may be granted later.
func (r *signRefusedError) passing() bool {
	switch r.failure.GetReason() {
	case tcoderv1.ErrorReason_ERROR_REASON_STATE_UNAVAILABLE,
		tcoderv1.ErrorReason_ERROR_REASON_OBJECT_STORE_UNAVAILABLE,
		tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING,
		tcoderv1.ErrorReason_ERROR_REASON_INTERNAL:
		return true
	default:
		return false
	}
}

func (r *signRefusedError) fault() *ffmpeg.Fault {
	return &ffmpeg.Fault{
		Class:   tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN,
		Reason:  r.failure.GetReason(),
		Message: r.failure.GetMessage(),
	}
}

// signer gets presigned requests for objects, in order.
type signer func(ctx context.Context, objects []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error)

// patiently asks for requests, again where a refusal may pass.
func (s signer) patiently(
	ctx context.Context, pacing transferPacing, objects []*tcoderv1.EncodedObject,
) ([]*tcoderv1.SignedRequest, error) {
	requests, err := patiently(ctx, pacing, func(ctx context.Context) ([]*tcoderv1.SignedRequest, error) { return s(ctx, objects) })
	if err == nil && len(requests) != len(objects) {
		return nil, wrongNumber()
	}

	return requests, err
}

func wrongNumber() *ffmpeg.Fault {
	return transferFailed("The control plane signed another number of requests than asked for.", nil)
}

// patiently asks the control plane, again where a refusal may pass.
func patiently[T any](ctx context.Context, pacing transferPacing, ask func(context.Context) (T, error)) (T, error) {
	var none T

	pause, started := pacing.firstPause, time.Now()

	for {
		answer, err := ask(ctx)

		var refusal *signRefusedError
		if err == nil || !errors.As(err, &refusal) {
			return answer, err
		}

		if !refusal.passing() || time.Since(started) > pacing.patience {
			return none, refusal.fault()
		}

		if !waitFor(ctx, nil, jitter(pause)) {
			return none, context.Cause(ctx)
		}

		pause = min(2*pause, pacing.maxPause)
	}
}
