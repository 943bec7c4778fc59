package pipeline

import (
	"errors"
	"time"
)

// Reason is the stable cause of a refusal or a failure, as the API's
// ErrorReason without its prefix.
type Reason string

// The reasons. See proto/tcoder/v1/error.proto for their meaning.
const (
	ReasonRequestInvalid         Reason = "REQUEST_INVALID"
	ReasonUnknownPreset          Reason = "UNKNOWN_PRESET"
	ReasonUnknownQuality         Reason = "UNKNOWN_QUALITY"
	ReasonFilenameInvalid        Reason = "FILENAME_INVALID"
	ReasonSizeInvalid            Reason = "SIZE_INVALID"
	ReasonUploadTooLarge         Reason = "UPLOAD_TOO_LARGE"
	ReasonSpecInvalid            Reason = "SPEC_INVALID"
	ReasonPageTokenInvalid       Reason = "PAGE_TOKEN_INVALID"
	ReasonIdempotencyKeyReused   Reason = "IDEMPOTENCY_KEY_REUSED"
	ReasonUploadNotFound         Reason = "UPLOAD_NOT_FOUND"
	ReasonUploadExpired          Reason = "UPLOAD_EXPIRED"
	ReasonUploadAborted          Reason = "UPLOAD_ABORTED"
	ReasonUploadCompleted        Reason = "UPLOAD_COMPLETED"
	ReasonUploadIncomplete       Reason = "UPLOAD_INCOMPLETE"
	ReasonUploadSizeMismatch     Reason = "UPLOAD_SIZE_MISMATCH"
	ReasonPartListInvalid        Reason = "PART_LIST_INVALID"
	ReasonJobNotFound            Reason = "JOB_NOT_FOUND"
	ReasonJobTerminal            Reason = "JOB_TERMINAL"
	ReasonJobNotTerminal         Reason = "JOB_NOT_TERMINAL"
	ReasonObjectNotFound         Reason = "OBJECT_NOT_FOUND"
	ReasonQueueFull              Reason = "QUEUE_FULL"
	ReasonCanceled               Reason = "CANCELED"
	ReasonWorkerNotFound         Reason = "WORKER_NOT_FOUND"
	ReasonLeaseLost              Reason = "LEASE_LOST"
	ReasonWorkerIncompatible     Reason = "WORKER_INCOMPATIBLE"
	ReasonMachineNotFound        Reason = "MACHINE_NOT_FOUND"
	ReasonServerDraining         Reason = "SERVER_DRAINING"
	ReasonPoolFixed              Reason = "POOL_FIXED"
	ReasonUnauthenticated        Reason = "UNAUTHENTICATED"
	ReasonPermissionDenied       Reason = "PERMISSION_DENIED"
	ReasonOriginNotAllowed       Reason = "ORIGIN_NOT_ALLOWED"
	ReasonStateUnavailable       Reason = "STATE_UNAVAILABLE"
	ReasonObjectStoreUnavailable Reason = "OBJECT_STORE_UNAVAILABLE"
	ReasonInternal               Reason = "INTERNAL"
	ReasonInputNotMedia          Reason = "INPUT_NOT_MEDIA"
	ReasonInputTruncated         Reason = "INPUT_TRUNCATED"
	ReasonInputCorrupt           Reason = "INPUT_CORRUPT"
	ReasonInputLimitExceeded     Reason = "INPUT_LIMIT_EXCEEDED"
	ReasonInputMissing           Reason = "INPUT_MISSING"
	ReasonInputNoUsableStream    Reason = "INPUT_NO_USABLE_STREAM"
	ReasonEncodeFailed           Reason = "ENCODE_FAILED"
	ReasonEncoderMissing         Reason = "ENCODER_MISSING"
	ReasonOutputInvalid          Reason = "OUTPUT_INVALID"
	ReasonTaskTimeout            Reason = "TASK_TIMEOUT"
	ReasonWorkerLost             Reason = "WORKER_LOST"
	ReasonWorkerDrained          Reason = "WORKER_DRAINED"
	ReasonMachineFault           Reason = "MACHINE_FAULT"
	ReasonTransferFailed         Reason = "TRANSFER_FAILED"
	ReasonQuarantined            Reason = "QUARANTINED"
)

// FieldViolation is what is wrong with one field of a request.
type FieldViolation struct {
	Field       string // path in proto names: spec.qualities[1]
	Description string
}

// Error is a refusal that a caller is told of. Message and Remedy are for a
// person, Reason is for a program; Cause is for the log alone.
type Error struct {
	Reason     Reason
	Message    string
	Remedy     string
	Fields     []FieldViolation
	Metadata   map[string]string
	RetryAfter time.Duration // 0: time alone won't help
	Cause      error
}

// NewError returns an Error with a reason and a message.
func NewError(reason Reason, message string) *Error {
	return &Error{Reason: reason, Message: message}
}

// Error tells the reason and the message, and the cause for the log.
func (e *Error) Error() string {
	s := string(e.Reason) + ": " + e.Message
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}

	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// ReasonOf returns the reason of the first *Error in err's chain, or
// ReasonInternal.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}

	return ReasonInternal
}

// Failure is why a job or an attempt ended without success.
type Failure struct {
	Reason  Reason `json:"reason"`
	Message string `json:"message"`
}
