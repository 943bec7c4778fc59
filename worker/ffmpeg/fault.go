package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Fault is why a probe or an encode failed.
//
//nolint:errname // it is the API's word
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

func inputFault(reason tcoderv1.ErrorReason, log, message string) *Fault {
	return &Fault{Class: tcoderv1.FaultClass_FAULT_CLASS_INPUT, Reason: reason, Message: message, Log: log}
}

func machineFault(log, message string) *Fault {
	return &Fault{
		Class: tcoderv1.FaultClass_FAULT_CLASS_MACHINE, Reason: tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT,
		Message: message, Log: log,
	}
}

func unknownFault(reason tcoderv1.ErrorReason, log, message string) *Fault {
	return &Fault{Class: tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, Reason: reason, Message: message, Log: log}
}

// Messages of more than one place.
const (
	unreadable  = "the source could not be read from the store"
	memorySpent = "FFmpeg took more memory than its limit for this source"
)

// transferFault is what the source says about its transfers, nil if they went
// well.
func transferFault(source Source, log string) error {
	if source.TransferError == nil {
		return nil
	}

	err := source.TransferError()
	if err == nil {
		return nil
	}

	if fault, ok := errors.AsType[*Fault](err); ok {
		return fault
	}

	return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, log, unreadable)
}

// endFault is the fault of a process that was ended from outside or didn't
// start; the caller's own cancel stays as it is.
func endFault(err error, log string) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, errStalled):
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, log, "FFmpeg made no progress")
	case errors.Is(err, errMemory):
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, log, memorySpent)
	case errors.Is(err, errProcessor):
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, log, "the work took more processor time than its limit")
	case errors.Is(err, errTimeLimit):
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, log, "the work took longer than its time limit")
	case errors.Is(err, errConfine):
		return machineFault(log, "FFmpeg could not be put into its sandbox")
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return missingProgram()
	default:
		return machineFault(err.Error()+"\n"+log, "FFmpeg could not be run")
	}
}

func missingProgram() *Fault {
	return &Fault{
		Class: tcoderv1.FaultClass_FAULT_CLASS_MACHINE, Reason: tcoderv1.ErrorReason_ERROR_REASON_ENCODER_MISSING,
		Message: "the worker has no FFmpeg",
	}
}

// mark is a piece of FFmpeg's standard error that tells a cause.
type mark struct {
	text  string
	fault func(log string) *Fault
}

// maxPixelsMark is what FFmpeg says where -max_pixels refuses a picture.
const maxPixelsMark = "exceeds specified max pixel count"

// marks are the causes, the surest first.
func marks() []mark {
	machine := func(message string) func(string) *Fault {
		return func(log string) *Fault { return machineFault(log, message) }
	}
	input := func(reason tcoderv1.ErrorReason, message string) func(string) *Fault {
		return func(log string) *Fault { return inputFault(reason, log, message) }
	}
	missing := func(log string) *Fault {
		return &Fault{
			Class:  tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN,
			Reason: tcoderv1.ErrorReason_ERROR_REASON_ENCODER_MISSING, Log: log,
			Message: "the worker's FFmpeg lacks an encoder or a filter that the plan needs",
		}
	}

	unknown := func(reason tcoderv1.ErrorReason, message string) func(string) *Fault {
		return func(log string) *Fault { return unknownFault(reason, log, message) }
	}
	transfer := unknown(tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, unreadable)

	return []mark{
		{"No space left on device", machine("the worker's disk is full")},
		{"Disk quota exceeded", machine("the worker's disk is full")},
		{"Read-only file system", machine("the worker's disk can't be written")},
		{"Too many open files", machine("the worker has no file descriptor left")},
		{"Exiting normally, received signal", machine("FFmpeg was stopped on the worker")},
		// What is too much for the bounds of a process, or a size that a broken
		// source claims: where memory really ends, the kernel kills.
		{"Cannot allocate memory", unknown(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, memorySpent)},
		{"Unknown encoder", missing},
		{"No such filter", missing},
		{maxPixelsMark, input(tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED, "the source's picture has more pixels than the limit")},
		{"Too many streams", input(tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED, "the source has more streams than the limit")},
		{"Format not on whitelist", input(tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, "the source is not in a container format that is accepted")},
		{"Protocol '", input(tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, "the source refers to other files")},
		{"Connection refused", transfer},
		{"Connection reset by peer", transfer},
		{"Stream ends prematurely", transfer},
		{"Server returned 5XX", transfer},
		{"maximum error rate", input(tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT, "most of the source can't be decoded")},
	}
}

// exitFault is the fault of a process that failed by itself. otherwise is the
// verdict when nothing tells a cause.
func exitFault(end exit, otherwise func(log string) *Fault) *Fault {
	switch end.signal {
	case 0:
	case syscall.SIGXFSZ:
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, end.log, "the output grew past the limit of a file")
	case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP:
		// Not ours: run tells of those. The kernel kills when memory ends, an
		// operator when the machine stops.
		return machineFault(end.log, "FFmpeg was killed on the worker")
	default:
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, end.log, "FFmpeg crashed")
	}

	for _, m := range marks() {
		if strings.Contains(end.log, m.text) {
			return m.fault(end.log)
		}
	}

	return otherwise(end.log)
}
