package worker

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// Why a task's context ends. They never reach the control plane as faults.
var (
	errStopped    = errors.New("the control plane stopped the task")
	errHandedBack = errors.New("the task was handed back")
	errTimeLimit  = errors.New("the task ran past its time limit")
)

func inputMissing(message string) *ffmpeg.Fault {
	return &ffmpeg.Fault{
		Class:   tcoderv1.FaultClass_FAULT_CLASS_INPUT,
		Reason:  tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING,
		Message: message,
	}
}

// transferFailed is a fault whose detail goes to the log alone.
func transferFailed(message string, cause error) *ffmpeg.Fault {
	fault := &ffmpeg.Fault{
		Class:   tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN,
		Reason:  tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		Message: message,
	}
	if cause != nil {
		fault.Log = scrub(cause).Error()
	}

	return fault
}

func refusedFault() *ffmpeg.Fault {
	return &ffmpeg.Fault{
		Class:   tcoderv1.FaultClass_FAULT_CLASS_MACHINE,
		Reason:  tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE,
		Message: "The control plane refused what the worker said of the task.",
	}
}

func machineFault(message string, cause error) *ffmpeg.Fault {
	return &ffmpeg.Fault{
		Class:   tcoderv1.FaultClass_FAULT_CLASS_MACHINE,
		Reason:  tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT,
		Message: message,
		Log:     scrub(cause).Error(),
	}
}

// faultOf classifies why a task failed. An error that nobody classified counts
// as unknown, so that it is charged and ends some time.
func faultOf(err error) *ffmpeg.Fault {
	var fault *ffmpeg.Fault

	switch {
	case errors.As(err, &fault):
		return fault
	case errors.Is(err, errTimeLimit), errors.Is(err, context.DeadlineExceeded):
		return &ffmpeg.Fault{
			Class:   tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN,
			Reason:  tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT,
			Message: "The task ran past its time limit.",
		}
	default:
		return &ffmpeg.Fault{
			Class:   tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN,
			Reason:  tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT,
			Message: "The worker failed unexpectedly.",
			Log:     scrub(err).Error(),
		}
	}
}

func faultReport(lease *tcoderv1.LeaseRef, fault *ffmpeg.Fault) *tcoderv1.TaskReport {
	return &tcoderv1.TaskReport{
		Lease: lease,
		End: &tcoderv1.TaskReport_Fault{Fault: &tcoderv1.Fault{
			Class:   fault.Class,
			Failure: &tcoderv1.Failure{Reason: fault.Reason, Message: fault.Message},
		}},
	}
}

// scrub returns err without the URL that net/http puts into its errors: it
// carries a signature.
func scrub(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s: %w", failed.Op, scrub(failed.Err))
	}

	return err
}
