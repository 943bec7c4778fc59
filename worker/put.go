package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// upload is what one PUT writes: an object's file, or a part of it.
type upload struct {
	object     *tcoderv1.EncodedObject
	from, size int64
	// sign gets another request, when the one before has expired.
	sign func(ctx context.Context) (*tcoderv1.SignedRequest, error)
}

// put uploads until the store has it, and returns its ETag if the store told it.
func (u *uploader) put(ctx context.Context, what upload, request *tcoderv1.SignedRequest) (string, error) {
	var (
		pause     = u.pacing.firstPause
		started   = time.Now()
		refusals  int
		ambiguous bool // an earlier try may have reached the store
	)

	for try := 1; ; try++ {
		if request == nil || expiresSoon(request) {
			fresh, err := what.sign(ctx)
			if err != nil {
				return "", err
			}

			request = fresh
		}

		etag, err := u.putOnce(ctx, what, request)
		if err == nil {
			return etag, nil
		}

		var (
			fault  *ffmpeg.Fault
			status statusError
		)

		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case errors.As(err, &fault):
			return "", fault
		case !errors.As(err, &status) || passing(int(status)):
			ambiguous = true
		case int(status) == http.StatusPreconditionFailed && ambiguous:
			return "", nil // the try whose answer was lost had succeeded
		case refused(int(status)) && refusals < maxRefusals:
			refusals++
			request = nil
		default:
			return "", transferFailed("The store refused a result.", err)
		}

		if try >= minTries && time.Since(started) > u.pacing.patience {
			return "", transferFailed("A result could not be written to the store.", err)
		}

		if !waitFor(ctx, nil, jitter(pause)) {
			return "", context.Cause(ctx)
		}

		pause = min(2*pause, u.pacing.maxPause)
	}
}

// putOnce makes one try. A *ffmpeg.Fault is final; any other error may pass.
func (u *uploader) putOnce(ctx context.Context, what upload, signed *tcoderv1.SignedRequest) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	file, err := u.open(what.object)
	if err != nil {
		return "", err
	}

	// The store needs longer to answer a large upload than to send some bytes.
	stall := 3 * u.pacing.stall

	watchdog := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watchdog.Stop()

	body := io.ReadCloser(&watchedFile{
		section: io.NewSectionReader(file, what.from, what.size), file: file, onRead: func() { watchdog.Reset(stall) },
	})
	if what.size == 0 {
		_ = file.Close()
		body = http.NoBody
	}

	request, err := http.NewRequestWithContext(ctx, http.MethodPut, signed.GetUrl(), body)
	if err != nil {
		_ = file.Close()

		return "", transferFailed("The address of a result is not one of a store.", err)
	}

	request.ContentLength = what.size
	setHeaders(request, signed.GetHeaders())

	response, err := u.client.Do(request)
	if err != nil {
		return "", fmt.Errorf("put: %w", stallOr(ctx, scrub(err)))
	}
	defer response.Body.Close() //nolint:errcheck // nothing was written

	// Reading the answer to its end lets the next upload use the connection.
	if _, err := io.CopyN(io.Discard, response.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("put: read the answer: %w", stallOr(ctx, scrub(err)))
	}

	if response.StatusCode/100 != 2 {
		return "", statusError(response.StatusCode)
	}

	return response.Header.Get("ETag"), nil
}

func (u *uploader) open(object *tcoderv1.EncodedObject) (*os.File, error) {
	file, size, err := ffmpeg.OpenResult(u.backlog.dir, object.GetName())
	if err != nil {
		return nil, err
	}

	if size != object.GetSizeBytes() {
		_ = file.Close()

		return nil, changedFault()
	}

	return file, nil
}

// changedFault is a file that was not final when it was taken for it.
func changedFault() *ffmpeg.Fault {
	return &ffmpeg.Fault{
		Class:   tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN,
		Reason:  tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID,
		Message: "A result changed after it was finished.",
	}
}

func expiresSoon(request *tcoderv1.SignedRequest) bool {
	return request.GetExpiresAt() != nil && time.Until(request.GetExpiresAt().AsTime()) < minRequestLife
}

// watchedFile tells of every read.
type watchedFile struct {
	section *io.SectionReader // of the file
	file    *os.File
	onRead  func()
}

// Read reads from the file.
func (f *watchedFile) Read(into []byte) (int, error) {
	f.onRead()

	return f.section.Read(into)
}

// Close closes the file.
func (f *watchedFile) Close() error { return f.file.Close() }
