package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// errResult is what is wrong with a result; it becomes OUTPUT_INVALID.
var errResult = errors.New("bad result")

// OpenResult opens what FFmpeg made below dir under a name, and tells its size.
// Its error is a *Fault.
//
// Who took FFmpeg over has dir, and this process may read more than FFmpeg: a
// link out of dir, be it the file or a folder before it, is OUTPUT_INVALID, as is
// what is no file. A link within dir leads to what FFmpeg made itself.
func OpenResult(dir, name string) (*os.File, uint64, error) {
	file, size, err := openResult(dir, name)
	if err != nil {
		return nil, 0, resultFault(err)
	}

	return file, size, nil
}

// openResult is OpenResult with an error that isn't a *Fault yet: it wraps
// errResult, or fs.ErrNotExist, or the machine's own.
func openResult(dir, name string) (*os.File, uint64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, 0, fmt.Errorf("measure: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read

	// A pipe would block until somebody writes to it.
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, openFault(err)
	}

	info, err := file.Stat()

	switch {
	case err != nil:
		err = fmt.Errorf("measure: %w", err)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%w: %s is no file", errResult, name)
	default:
		return file, uint64(info.Size()), nil
	}

	_ = file.Close()

	return nil, 0, err
}

// openFault tells what FFmpeg made from what the machine fails at.
func openFault(err error) error {
	// Links that lead out of a root are refused by Go, not by the kernel.
	errno, ofKernel := errors.AsType[syscall.Errno](err)
	if !ofKernel || errno == syscall.ELOOP || errno == syscall.ENOTDIR || errno == syscall.ENXIO {
		return fmt.Errorf("%w: %w", errResult, err)
	}

	return fmt.Errorf("measure: %w", err)
}

// RemoveResult removes what FFmpeg made below dir under a name. It removes
// nothing elsewhere.
func RemoveResult(dir, name string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("remove a result: %w", err)
	}
	defer root.Close() //nolint:errcheck // it changes nothing

	if err := root.Remove(name); err != nil {
		return fmt.Errorf("remove a result: %w", err)
	}

	return nil
}

func resultFault(err error) *Fault {
	if errors.Is(err, errResult) || errors.Is(err, fs.ErrNotExist) {
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, err.Error(), "FFmpeg's result is not what was planned")
	}

	return machineFault(err.Error(), "the worker can't read its own result")
}
