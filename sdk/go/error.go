package tcoder

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// ErrUnreachable is wrapped by the errors of calls that the server never
// answered: nothing listens there, or the connection was lost.
var ErrUnreachable = errors.New("server unreachable")

// Error is a call that was refused or could not be made.
type Error struct {
	// Code is Connect's class of the error.
	Code connect.Code
	// Reason is the stable cause to switch on. It is UNSPECIFIED when the
	// answer didn't come from a tcoder server, or there was none.
	Reason tcoderv1.ErrorReason
	// Message says what is wrong, as a sentence.
	Message string
	// Remedy says what to do about it. Empty where nothing helps.
	Remedy string
	// Fields are the fields of the request at fault.
	Fields []*tcoderv1.FieldViolation
	// Metadata are facts about this case, such as `declared_bytes`.
	Metadata map[string]string
	// RetryAfter is when a retry can succeed; 0 where time alone won't help.
	RetryAfter time.Duration

	cause error
}

// Error tells the reason and the message.
func (e *Error) Error() string {
	return e.ReasonName() + ": " + e.Message
}

// Unwrap returns what caused the error, [ErrUnreachable] among it.
func (e *Error) Unwrap() error { return e.cause }

// ReasonName is the reason as texts write it: UNKNOWN_PRESET. Where there is
// none it is UNREACHABLE, or the name of the code.
func (e *Error) ReasonName() string {
	switch {
	case e.Reason != tcoderv1.ErrorReason_ERROR_REASON_UNSPECIFIED:
		return ReasonName(e.Reason)
	case errors.Is(e, ErrUnreachable):
		return "UNREACHABLE"
	default:
		return strings.ToUpper(e.Code.String())
	}
}

// ReasonName is a reason as texts write it, without its prefix.
func ReasonName(r tcoderv1.ErrorReason) string {
	return strings.TrimPrefix(r.String(), "ERROR_REASON_")
}

// ReasonOf returns the reason of the first [*Error] in err's chain, or
// UNSPECIFIED.
func ReasonOf(err error) tcoderv1.ErrorReason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}

	return tcoderv1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// newError makes an Error of what a Connect call returned.
func newError(err error) *Error {
	var refusal *connect.Error
	if !errors.As(err, &refusal) {
		return &Error{Code: connect.CodeUnknown, Message: err.Error(), cause: err}
	}
	e := &Error{Code: refusal.Code(), Message: refusal.Message(), cause: err}
	for _, detail := range refusal.Details() {
		value, err := detail.Value()
		if err != nil {
			continue // of a newer server; the code and the message still tell
		}
		if d, ok := value.(*tcoderv1.ErrorDetail); ok {
			e.Reason = d.GetReason()
			e.Remedy = d.GetRemedy()
			e.Fields = d.GetFields()
			e.Metadata = d.GetMetadata()
			e.RetryAfter = d.GetRetryAfter().AsDuration()
		}
	}
	if isUnanswered(err) {
		e.Message = "no answer from the server: " + reachFailure(err)
		e.Remedy = "check that the server runs and that its address is right"
		e.cause = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}

	return e
}

// isUnanswered reports whether a call ended without an answer of a server.
func isUnanswered(err error) bool {
	if connect.IsWireError(err) {
		return false
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return true
	default:
		var network net.Error

		return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF)
	}
}

// isTransient reports whether the same call may succeed later.
func isTransient(err error) bool {
	return isUnanswered(err) || connect.CodeOf(err) == connect.CodeUnavailable
}

// reachFailure is the innermost part of a network error: "connection refused".
func reachFailure(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		return fmt.Sprintf("%s: %s", op.Addr, innermost(op.Err))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || connect.CodeOf(err) == connect.CodeDeadlineExceeded {
		return "time ran out"
	}

	return innermost(withoutURL(err))
}

func innermost(err error) string {
	if system, ok := errors.AsType[*os.SyscallError](err); ok {
		return system.Err.Error()
	}

	return err.Error()
}

// withoutURL drops the URL from an error of net/http: it may be a signed one.
func withoutURL(err error) error {
	if located, ok := errors.AsType[*url.Error](err); ok {
		return located.Err
	}

	return err
}
