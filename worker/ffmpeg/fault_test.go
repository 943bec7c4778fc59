package ffmpeg

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// TestExitFault guarantees whose fault each end of FFmpeg is: of the input,
// which fails the job at once, of the machine, which costs no attempt, or
// unknown.
func TestExitFault(t *testing.T) {
	t.Parallel()

	const (
		input   = tcoderv1.FaultClass_FAULT_CLASS_INPUT
		machine = tcoderv1.FaultClass_FAULT_CLASS_MACHINE
		unknown = tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN
	)

	for name, test := range map[string]struct {
		end    exit
		class  tcoderv1.FaultClass
		reason tcoderv1.ErrorReason
	}{
		"disk full":  {exit{code: 1, log: "av_interleaved_write_frame(): No space left on device"}, machine, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT},
		"no memory":  {exit{code: 1, log: "Error: Cannot allocate memory"}, unknown, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED},
		"killed":     {exit{code: -1, signal: syscall.SIGKILL}, machine, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT},
		"stopped":    {exit{code: 255, log: "Exiting normally, received signal 15."}, machine, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT},
		"file size":  {exit{code: -1, signal: syscall.SIGXFSZ}, unknown, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED},
		"crash":      {exit{code: -1, signal: syscall.SIGSEGV}, unknown, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED},
		"no encoder": {exit{code: 1, log: "Unknown encoder 'libx264'"}, unknown, tcoderv1.ErrorReason_ERROR_REASON_ENCODER_MISSING},
		"pixels":     {exit{code: 1, log: "Picture size 20000x20000 exceeds specified max pixel count 1"}, input, tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED},
		"playlist":   {exit{code: 1, log: "Format not on whitelist 'mov'"}, input, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"protocol":   {exit{code: 1, log: "Protocol 'file' not on whitelist 'http,tcp'!"}, input, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA},
		"noise":      {exit{code: 69, log: "Decode error rate 1 exceeds maximum error rate 0.66"}, input, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT},
		"else":       {exit{code: 1, log: "Conversion failed!"}, unknown, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			fault := exitFault(test.end, func(log string) *Fault {
				return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, log, "FFmpeg failed on this source")
			})
			require.Equal(t, test.class, fault.Class)
			require.Equal(t, test.reason, fault.Reason)
			require.Equal(t, test.end.log, fault.Log)
			require.NotContains(t, fault.Message, "whitelist", "the message is for users")
		})
	}
}

// TestEndFault guarantees that a cancel stays the caller's own error, and that
// what a process was ended for, or could not start for, is classified.
func TestEndFault(t *testing.T) {
	t.Parallel()

	require.ErrorIs(t, endFault(context.Canceled, ""), context.Canceled)

	for _, test := range []struct {
		err    error
		reason tcoderv1.ErrorReason
	}{
		{errStalled, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT},
		{errMemory, tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED},
		{errProcessor, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT},
		{errConfine, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT},
		{errTimeLimit, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT},
		{exec.ErrNotFound, tcoderv1.ErrorReason_ERROR_REASON_ENCODER_MISSING},
		{syscall.ENOENT, tcoderv1.ErrorReason_ERROR_REASON_ENCODER_MISSING},
		{syscall.EAGAIN, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT},
	} {
		fault, ok := errors.AsType[*Fault](endFault(test.err, ""))
		require.True(t, ok)
		require.Equal(t, test.reason, fault.Reason)
	}
}

// TestTransferFault guarantees that a broken transfer is never the input's
// fault, and that what the source knows of it passes as it is.
func TestTransferFault(t *testing.T) {
	t.Parallel()

	require.NoError(t, transferFault(Source{}, ""))
	require.NoError(t, transferFault(Source{TransferError: func() error { return nil }}, ""))

	fault, ok := errors.AsType[*Fault](transferFault(Source{TransferError: func() error { return syscall.ECONNRESET }}, "log"))
	require.True(t, ok)
	require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, fault.Class)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, fault.Reason)

	own := inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING, "", "gone")
	require.Equal(t, own, transferFault(Source{TransferError: func() error { return own }}, ""))
}
