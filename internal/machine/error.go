package machine

import (
	"errors"
	"time"
)

// Class says what can be done about a failure.
type Class string

// The classes of failure.
const (
	// NotFound: there is no such machine.
	NotFound Class = "NOT_FOUND"
	// RateLimited: asked too often. Nothing happened; repeat it later.
	RateLimited Class = "RATE_LIMITED"
	// RegionFull: no room for a new machine in any region that was asked for.
	// Nothing was made; try other regions, or later.
	RegionFull Class = "REGION_FULL"
	// HostFull: the computer that a stopped machine belongs to has no room, and
	// may not have any for days. Destroy the machine and create another.
	HostFull Class = "HOST_FULL"
	// Quota: the account may not have more. Trying on is in vain until the
	// operator has raised the quota or the pool is smaller.
	Quota Class = "QUOTA"
	// NotReady: the machine is in the middle of something. Repeat it soon.
	NotReady Class = "NOT_READY"
	// Unauthorized: the credential is wrong, expired, or not for this. Trying
	// on is in vain until the operator has changed it.
	Unauthorized Class = "UNAUTHORIZED"
	// NameTaken: a machine that isn't this pool's has the name. Use another ID.
	NameTaken Class = "NAME_TAKEN"
	// Unclear: no answer, or none that says whether the call took effect.
	// Repeating it is safe; until it has succeeded, or the list has shown what
	// became of it, count it as if it had.
	Unclear Class = "UNCLEAR"
	// Refused: the provider understood and won't; repeating can't succeed.
	Refused Class = "REFUSED"
)

// Coarse kinds of failure, for callers that don't tell all classes apart; test
// with [errors.Is].
var (
	// ErrNotFound is NotFound.
	ErrNotFound = errors.New("machine not found")
	// ErrCapacity is RegionFull, HostFull and Quota: there is no room.
	ErrCapacity = errors.New("no capacity for a machine")
	// ErrUnavailable is Unclear, RateLimited and NotReady: repeating the same
	// call is safe and may well succeed.
	ErrUnavailable = errors.New("machine provider unavailable")
)

// Error is a failure of a provider. It carries no secret.
type Error struct {
	Class Class
	// Message is a sentence for the operator.
	Message string
	// RetryAfter is how long the provider asked to be left alone; 0 if it
	// didn't say.
	RetryAfter time.Duration
	// Err is the cause, for the log; may be nil.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	text := e.Message
	if text == "" {
		text = string(e.Class)
	}
	if e.Err != nil {
		text += " (" + e.Err.Error() + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes the coarse kinds of this package match.
func (e *Error) Is(target error) bool {
	kind := kindOf(e.Class)
	return kind != nil && kind == target
}

// ClassOf returns the class of an error of a provider: Refused for one that
// says nothing about it, empty for nil.
func ClassOf(err error) Class {
	var classed *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &classed):
		return classed.Class
	case errors.Is(err, ErrNotFound):
		return NotFound
	case errors.Is(err, ErrCapacity):
		return RegionFull
	case errors.Is(err, ErrUnavailable):
		return Unclear
	default:
		return Refused
	}
}

// MessageOf returns what an error of a provider says to the operator, as a
// sentence; empty for nil.
func MessageOf(err error) string {
	var classed *Error
	if errors.As(err, &classed) && classed.Message != "" {
		return classed.Message
	}
	switch ClassOf(err) {
	case "":
		return ""
	case NotFound:
		return "The machine isn't there."
	case RateLimited:
		return "The provider was asked too often."
	case RegionFull:
		return "The provider has no room for a machine in the pool's regions."
	case HostFull:
		return "The host of a stopped machine has no room to start it."
	case Quota:
		return "The account's quota doesn't allow another machine."
	case NotReady:
		return "The machine is in the middle of something."
	case Unauthorized:
		return "The provider doesn't accept the credential."
	case NameTaken:
		return "The machine's name is taken by one that isn't of this pool."
	case Unclear:
		return "The provider couldn't be reached, or didn't answer."
	case Refused:
	}
	return "The provider refused."
}

func kindOf(class Class) error {
	switch class {
	case NotFound:
		return ErrNotFound
	case RegionFull, HostFull, Quota:
		return ErrCapacity
	case Unclear, RateLimited, NotReady:
		return ErrUnavailable
	case Unauthorized, NameTaken, Refused:
	}
	return nil
}
