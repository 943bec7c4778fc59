package ffmpeg

import (
	"fmt"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Fault is why a probe or an encode failed.
type Fault struct {
	// Class is whose fault it is.
	Class tcoderv1.FaultClass
	// Reason is the cause for a program.
	Reason tcoderv1.ErrorReason
	// Message is the cause for the user: a sentence without FFmpeg's output,
	// paths or URLs.
	Message string
	// Log is the end of FFmpeg's standard error, for the worker's log alone.
	Log string
}

// Error tells the reason and the message.
func (f *Fault) Error() string { return fmt.Sprintf("%s: %s", f.Reason, f.Message) }

func inputFault(reason tcoderv1.ErrorReason, log, format string, args ...any) *Fault {
	return &Fault{
		Class:  tcoderv1.FaultClass_FAULT_CLASS_INPUT,
		Reason: reason, Message: fmt.Sprintf(format, args...), Log: log,
	}
}
