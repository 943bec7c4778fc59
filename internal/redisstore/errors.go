package redisstore

import (
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// queueFullRetry is when a project whose queue is full may try again.
const queueFullRetry = 5 * time.Second

// failed turns an error of go-redis into one of the domain: Redis can't be
// reached or can't serve now, or we did something that it refuses.
func failed(verb string, err error) error {
	var reply redis.Error
	if errors.As(err, &reply) && !errors.Is(err, redis.Nil) && !passing(reply.Error()) {
		return internalError(verb, err)
	}

	return &pipeline.Error{
		Reason:     pipeline.ReasonStateUnavailable,
		Message:    "The state store doesn't answer.",
		Remedy:     "Try again; the call may be repeated safely.",
		RetryAfter: time.Second,
		Cause:      err,
	}
}

// passing reports whether a reply of Redis is about its own state, which time or an operator mends.
func passing(reply string) bool {
	for _, prefix := range []string{
		"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "OOM", "MISCONF", "NOREPLICAS",
		"NOAUTH", "WRONGPASS", "NOPERM", "ERR max number of clients", "ERR max concurrent connections",
	} {
		if strings.HasPrefix(reply, prefix) {
			return true
		}
	}

	return false
}

func internalError(verb string, cause error) error {
	return &pipeline.Error{
		Reason:  pipeline.ReasonInternal,
		Message: "The state store failed at " + verb + ".",
		Cause:   cause,
	}
}

// refusal is the error for a reason that a script returned.
func refusal(reason pipeline.Reason) error {
	e := &pipeline.Error{Reason: reason}

	switch reason {
	case pipeline.ReasonIdempotencyKeyReused:
		e.Message = "The idempotency key was used for another request."
		e.Remedy = "Use a new key for a new request."
	case pipeline.ReasonUploadNotFound:
		e.Message = "There is no such upload."
	case pipeline.ReasonUploadCompleted:
		e.Message = "The upload is already complete."
	case pipeline.ReasonUploadExpired:
		e.Message = "The upload's deadline passed before it was complete."
		e.Remedy = "Create a new upload."
	case pipeline.ReasonUploadAborted:
		e.Message = "The upload was aborted."
		e.Remedy = "Create a new upload."
	case pipeline.ReasonUploadSizeMismatch:
		e.Message = "The uploaded object doesn't have the declared size."
		e.Remedy = "Create a new upload with the right size."
	case pipeline.ReasonPermissionDenied:
		e.Message = "The worker's id is of one on another machine."
	case pipeline.ReasonJobNotFound:
		e.Message = "There is no such job."
	case pipeline.ReasonJobTerminal:
		e.Message = "The job has ended."
	case pipeline.ReasonJobNotTerminal:
		e.Message = "The job has not ended."
		e.Remedy = "Cancel it, or wait for its end."
	case pipeline.ReasonObjectNotFound:
		e.Message = "The job's source is gone."
		e.Remedy = "Upload it again."
	case pipeline.ReasonQueueFull:
		e.Message = "The project has as many waiting jobs as it may."
		e.Remedy = "Wait until some have started, or cancel some."
		e.RetryAfter = queueFullRetry
	case pipeline.ReasonInputMissing:
		e.Message = "The job's source was never uploaded."
		e.Remedy = "Create a new upload."
	case pipeline.ReasonWorkerNotFound:
		e.Message = "There is no such worker."
	case pipeline.ReasonMachineNotFound:
		e.Message = "There is no such machine."
	case pipeline.ReasonLeaseLost:
		e.Message = "Another replica leads by now."
	default:
		e.Reason = pipeline.ReasonInternal
		e.Message = "The state store gave an unknown code."
		e.Cause = errors.New(string(reason))
	}

	return e
}
