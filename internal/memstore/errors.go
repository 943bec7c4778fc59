package memstore

import (
	"errors"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// queueFullRetry is when a project whose queue is full may try again.
const queueFullRetry = 5 * time.Second

func refuse(reason pipeline.Reason, message string) error { return pipeline.NewError(reason, message) }

func noUpload() error { return refuse(pipeline.ReasonUploadNotFound, "There is no such upload.") }

func noJob() error { return refuse(pipeline.ReasonJobNotFound, "There is no such job.") }

func keyReused() error {
	return refuse(pipeline.ReasonIdempotencyKeyReused, "The idempotency key was used for another request.")
}

func queueFull() error {
	return &pipeline.Error{
		Reason: pipeline.ReasonQueueFull, Message: "The project has as many waiting jobs as it may.",
		Remedy: "Wait until some have started, or cancel some.", RetryAfter: queueFullRetry,
	}
}

// badOrder is our own mistake: a plan whose task waits for one that comes later.
func badOrder() error {
	return &pipeline.Error{
		Reason: pipeline.ReasonInternal, Message: "The state store refused a plan.",
		Cause: errors.New("a task can only wait for those before it"),
	}
}

// uploadEnded is the refusal of an upload in a final state.
func uploadEnded(s pipeline.UploadState) error {
	switch s {
	case pipeline.UploadCompleted:
		return refuse(pipeline.ReasonUploadCompleted, "The upload is already complete.")
	case pipeline.UploadExpired:
		return refuse(pipeline.ReasonUploadExpired, "The upload's deadline passed before it was complete.")
	case pipeline.UploadAborted:
		return refuse(pipeline.ReasonUploadAborted, "The upload was aborted.")
	case pipeline.UploadFailed:
		return refuse(pipeline.ReasonUploadSizeMismatch, "The uploaded object doesn't have the declared size.")
	default:
		return refuse(pipeline.ReasonInternal, "The upload is still open.")
	}
}
