package interceptor

import (
	"time"

	"connectrpc.com/connect"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// codes returns the Connect code of every reason.
func codes() map[pipeline.Reason]connect.Code {
	return map[pipeline.Reason]connect.Code{
		pipeline.ReasonRequestInvalid:       connect.CodeInvalidArgument,
		pipeline.ReasonUnknownPreset:        connect.CodeInvalidArgument,
		pipeline.ReasonUnknownQuality:       connect.CodeInvalidArgument,
		pipeline.ReasonFilenameInvalid:      connect.CodeInvalidArgument,
		pipeline.ReasonSizeInvalid:          connect.CodeInvalidArgument,
		pipeline.ReasonUploadTooLarge:       connect.CodeInvalidArgument,
		pipeline.ReasonSpecInvalid:          connect.CodeInvalidArgument,
		pipeline.ReasonPageTokenInvalid:     connect.CodeInvalidArgument,
		pipeline.ReasonIdempotencyKeyReused: connect.CodeAlreadyExists,

		pipeline.ReasonUploadNotFound:     connect.CodeNotFound,
		pipeline.ReasonUploadExpired:      connect.CodeFailedPrecondition,
		pipeline.ReasonUploadAborted:      connect.CodeFailedPrecondition,
		pipeline.ReasonUploadCompleted:    connect.CodeFailedPrecondition,
		pipeline.ReasonUploadIncomplete:   connect.CodeFailedPrecondition,
		pipeline.ReasonUploadSizeMismatch: connect.CodeFailedPrecondition,
		pipeline.ReasonPartListInvalid:    connect.CodeInvalidArgument,

		pipeline.ReasonJobNotFound:    connect.CodeNotFound,
		pipeline.ReasonJobTerminal:    connect.CodeFailedPrecondition,
		pipeline.ReasonJobNotTerminal: connect.CodeFailedPrecondition,
		pipeline.ReasonObjectNotFound: connect.CodeNotFound,
		pipeline.ReasonQueueFull:      connect.CodeResourceExhausted,
		pipeline.ReasonCanceled:       connect.CodeCanceled,

		pipeline.ReasonWorkerNotFound:     connect.CodeNotFound,
		pipeline.ReasonLeaseLost:          connect.CodeFailedPrecondition,
		pipeline.ReasonWorkerIncompatible: connect.CodeFailedPrecondition,
		pipeline.ReasonMachineNotFound:    connect.CodeNotFound,
		pipeline.ReasonServerDraining:     connect.CodeUnavailable,
		pipeline.ReasonPoolFixed:          connect.CodeFailedPrecondition,

		pipeline.ReasonUnauthenticated:  connect.CodeUnauthenticated,
		pipeline.ReasonPermissionDenied: connect.CodePermissionDenied,
		pipeline.ReasonOriginNotAllowed: connect.CodePermissionDenied,

		pipeline.ReasonStateUnavailable:       connect.CodeUnavailable,
		pipeline.ReasonObjectStoreUnavailable: connect.CodeUnavailable,
		pipeline.ReasonInternal:               connect.CodeInternal,

		// Why jobs fail. As the answer of a call they say that the job's
		// source or result doesn't allow what was asked.
		pipeline.ReasonInputNotMedia:       connect.CodeFailedPrecondition,
		pipeline.ReasonInputTruncated:      connect.CodeFailedPrecondition,
		pipeline.ReasonInputCorrupt:        connect.CodeFailedPrecondition,
		pipeline.ReasonInputLimitExceeded:  connect.CodeFailedPrecondition,
		pipeline.ReasonInputMissing:        connect.CodeFailedPrecondition,
		pipeline.ReasonInputNoUsableStream: connect.CodeFailedPrecondition,
		pipeline.ReasonEncodeFailed:        connect.CodeFailedPrecondition,
		pipeline.ReasonEncoderMissing:      connect.CodeFailedPrecondition,
		pipeline.ReasonOutputInvalid:       connect.CodeFailedPrecondition,
		pipeline.ReasonTaskTimeout:         connect.CodeFailedPrecondition,
		pipeline.ReasonWorkerLost:          connect.CodeFailedPrecondition,
		pipeline.ReasonWorkerDrained:       connect.CodeFailedPrecondition,
		pipeline.ReasonMachineFault:        connect.CodeFailedPrecondition,
		pipeline.ReasonTransferFailed:      connect.CodeFailedPrecondition,
		pipeline.ReasonQuarantined:         connect.CodeFailedPrecondition,
	}
}

// remedies returns what a caller can do about a reason, where the error
// itself doesn't say. Reasons that nothing helps against are left out.
func remedies() map[pipeline.Reason]string {
	return map[pipeline.Reason]string{
		pipeline.ReasonRequestInvalid:         "Correct the named fields.",
		pipeline.ReasonUnknownPreset:          "Use a name of ListPresets.",
		pipeline.ReasonUnknownQuality:         "Use 2160p, 1440p, 1080p, 720p, 480p, 360p or 240p.",
		pipeline.ReasonFilenameInvalid:        "Send the name alone, without a path, in 1 to 255 bytes.",
		pipeline.ReasonSizeInvalid:            "Send a file that is not empty, and its exact size in bytes.",
		pipeline.ReasonUploadTooLarge:         "Send a smaller file, or ask the operator to raise the limit.",
		pipeline.ReasonSpecInvalid:            "Correct the named fields; ListPresets shows complete specs.",
		pipeline.ReasonPageTokenInvalid:       "Start again at the first page, with an empty token.",
		pipeline.ReasonIdempotencyKeyReused:   "Use a new key for a new request.",
		pipeline.ReasonUploadExpired:          "Create a new upload.",
		pipeline.ReasonUploadAborted:          "Create a new upload.",
		pipeline.ReasonUploadIncomplete:       "Send what is missing, then complete the upload again.",
		pipeline.ReasonUploadSizeMismatch:     "Create a new upload with the exact size of the file.",
		pipeline.ReasonPartListInvalid:        "Read the upload for the parts that the store holds.",
		pipeline.ReasonJobNotTerminal:         "Wait for the job to end, or cancel it.",
		pipeline.ReasonObjectNotFound:         "Put the object into the input bucket first, or use an upload.",
		pipeline.ReasonServerDraining:         "Connect again; another replica may answer.",
		pipeline.ReasonUnauthenticated:        "Send a valid key as `Authorization: Bearer KEY`.",
		pipeline.ReasonOriginNotAllowed:       "Ask the operator to allow this host or origin.",
		pipeline.ReasonStateUnavailable:       "Try again with the same idempotency key.",
		pipeline.ReasonObjectStoreUnavailable: "Try again.",
		pipeline.ReasonInternal:               "Tell the operator the request's id.",
		pipeline.ReasonInputMissing:           "Upload the source again as a new job.",
	}
}

// retryAfter returns how long to wait for a reason that passes by itself; 0
// for the others.
func retryAfter(r pipeline.Reason) time.Duration {
	switch r {
	case pipeline.ReasonServerDraining, pipeline.ReasonStateUnavailable, pipeline.ReasonObjectStoreUnavailable:
		return time.Second
	default:
		return 0
	}
}
