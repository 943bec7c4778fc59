package cli

import (
	"errors"
	"math"

	"connectrpc.com/connect"

	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// JobFailedError is a job that ended without success. It has been shown
// already, so only the exit code and a line are left to tell.
type JobFailedError struct {
	Reason  string
	Message string
}

// Error implements error.
func (e *JobFailedError) Error() string { return e.Reason + ": " + e.Message }

// ExitCode is the exit code that an error means.
func ExitCode(err error) int {
	var usage *UsageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usage):
		return ExitUsage
	case errors.Is(err, tcoder.ErrUnreachable):
		return ExitUnreachable
	default:
		return ExitFailed
	}
}

// failure is what is said about an error.
type failure struct {
	Code    string `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// RetryAfterSeconds is when the same command can succeed.
	RetryAfterSeconds float64 `json:"retryAfterSeconds,omitempty"`

	remedy string
	fields []string
}

func describe(err error) failure {
	var usage *UsageError
	var refusal *tcoder.Error
	var job *JobFailedError
	switch {
	case errors.As(err, &usage):
		return failure{Code: connect.CodeInvalidArgument.String(), Reason: "USAGE", Message: usage.Error()}
	case errors.As(err, &job):
		return failure{Code: connect.CodeAborted.String(), Reason: job.Reason, Message: job.Message}
	case errors.As(err, &refusal):
		f := failure{
			Code: refusal.Code.String(), Reason: refusal.ReasonName(), Message: refusal.Message, remedy: refusal.Remedy,
			RetryAfterSeconds: refusal.RetryAfter.Seconds(),
		}
		for _, field := range refusal.Fields {
			f.fields = append(f.fields, field.GetField()+": "+field.GetDescription())
		}

		return f
	case errors.Is(err, ErrInterrupted):
		return failure{Code: connect.CodeCanceled.String(), Reason: "INTERRUPTED", Message: err.Error()}
	default:
		return failure{Code: connect.CodeUnknown.String(), Reason: "FAILED", Message: err.Error()}
	}
}

// Report tells an error: a line on standard error with the reason, and what to
// do about it; and with asJSON a document on standard output, unless a job
// stands there already.
func (p *Program) Report(err error, asJSON bool) {
	f := describe(err)
	p.Logf("error: %s: %s", f.Reason, f.Message)
	for _, field := range f.fields {
		p.Logf("  %s", field)
	}
	if f.remedy != "" {
		p.Logf("  %s", f.remedy)
	}
	if f.RetryAfterSeconds > 0 {
		p.Logf("  it can succeed in %.0f s", math.Ceil(f.RetryAfterSeconds))
	}
	if f.Reason == "USAGE" {
		p.Logf("  see tcoder --help")
	}
	var shown *ShownError
	if asJSON && !errors.As(err, &shown) {
		if err := p.PrintJSON(map[string]failure{"error": f}); err != nil {
			p.Logf("error: %v", err)
		}
	}
}

// ShownError is an error after the command's JSON document: nothing more may
// be written to standard output.
type ShownError struct{ Err error }

// Error implements error.
func (e *ShownError) Error() string { return e.Err.Error() }

// Unwrap implements errors.Unwrap.
func (e *ShownError) Unwrap() error { return e.Err }
