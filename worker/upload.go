package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

const (
	uploadParallel = 4
	// signBatch is how many requests are signed in one message: few enough that
	// none expires while it waits for its turn.
	signBatch = 32
	// A request that ends this soon is not worth starting with.
	minRequestLife = 10 * time.Second
	// A transfer that failed this often has been tried, however quick each try was.
	minTries = 5
	// A store may refuse so many fresh signatures of one object before it is believed.
	maxRefusals = 3
)

// uploader sends the finished files of one attempt to the store while others
// are still being made. The first failure that can't be mended ends it, and is
// told to onFailure.
type uploader struct {
	client    *http.Client
	sign      signer
	dir       string
	pacing    transferPacing
	onFailure func(error)
	backlog   *backlog
	// onStored is told of every object that is in the store. Its file is gone.
	onStored func(name string)

	mu      sync.Mutex
	known   map[string]uint64 // size of every object that was added, by name
	pending []*tcoderv1.EncodedObject
	closed  bool
	failure error
	wake    chan struct{} // holds one token when pending or closed has changed
}

func newUploader(
	client *http.Client, sign signer, backlog *backlog, pacing transferPacing, onFailure func(error), onStored func(name string),
) *uploader {
	return &uploader{
		client: client, sign: sign, dir: backlog.dir, backlog: backlog, pacing: pacing, onFailure: onFailure, onStored: onStored,
		known: map[string]uint64{}, wake: make(chan struct{}, 1),
	}
}

// add queues the objects that weren't added before. A file that is added must
// not change any more.
func (u *uploader) add(objects ...*tcoderv1.EncodedObject) {
	var sizeBytes uint64

	u.mu.Lock()

	for _, object := range objects {
		if _, seen := u.known[object.GetName()]; !seen {
			u.known[object.GetName()] = object.GetSizeBytes()
			u.pending = append(u.pending, object)
			sizeBytes += object.GetSizeBytes()
		}
	}

	if sizeBytes > 0 {
		u.backlog.grow(sizeBytes) // before any of it can be stored
	}
	u.mu.Unlock()
	u.poke()
}

// close says that nothing more will be added.
func (u *uploader) close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	u.poke()
}

func (u *uploader) poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// sent tells the size an object was uploaded with, once run has returned nil.
func (u *uploader) sent(name string) (sizeBytes uint64, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()

	sizeBytes, ok = u.known[name]

	return sizeBytes, ok
}

// run uploads until everything that was added before close is in the store.
func (u *uploader) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var (
		puts  sync.WaitGroup
		slots = make(chan struct{}, uploadParallel)
	)

	fail := func(err error) {
		u.mu.Lock()
		first := u.failure == nil
		if first {
			u.failure = err
		}
		u.mu.Unlock()

		if first {
			cancel(err)
			u.onFailure(err)
		}
	}

	for ctx.Err() == nil {
		batch, more := u.next(ctx)
		if !more {
			break
		}

		requests, err := u.sign.patiently(ctx, u.pacing, batch)
		if err != nil {
			fail(err)

			break
		}

		for i, object := range batch {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				continue // what is left of the batch is dropped, and the loop ends
			}

			puts.Go(func() {
				defer func() { <-slots }()

				if err := recovered(func() error { return u.store(ctx, object, requests[i]) }); err != nil {
					fail(err)
				}
			})
		}
	}

	puts.Wait()

	u.mu.Lock()
	defer u.mu.Unlock()

	if u.failure != nil {
		return u.failure
	}

	return context.Cause(ctx)
}

// next waits for a batch; more is false when there will be none.
func (u *uploader) next(ctx context.Context) (batch []*tcoderv1.EncodedObject, more bool) {
	for {
		u.mu.Lock()
		n := min(len(u.pending), signBatch)
		batch, u.pending = u.pending[:n:n], u.pending[n:]
		closed := u.closed
		u.mu.Unlock()

		if n > 0 {
			return batch, true
		}

		if closed {
			return nil, false
		}

		select {
		case <-u.wake:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// store uploads one object, and makes room on the disk for what follows.
func (u *uploader) store(ctx context.Context, object *tcoderv1.EncodedObject, request *tcoderv1.SignedRequest) error {
	if err := u.put(ctx, object, request); err != nil {
		return err
	}

	if err := os.Remove(filepath.Join(u.dir, filepath.FromSlash(object.GetName()))); err != nil {
		return machineFault("A result could not be removed from the worker's disk.", err)
	}

	u.backlog.shrink(object.GetSizeBytes())
	u.onStored(object.GetName())

	return nil
}

// put uploads one object until the store has it.
func (u *uploader) put(ctx context.Context, object *tcoderv1.EncodedObject, request *tcoderv1.SignedRequest) error {
	var (
		pause     = u.pacing.firstPause
		started   = time.Now()
		refusals  int
		ambiguous bool // an earlier try may have reached the store
	)

	for try := 1; ; try++ {
		if request == nil || expiresSoon(request) {
			fresh, err := u.sign.patiently(ctx, u.pacing, []*tcoderv1.EncodedObject{object})
			if err != nil {
				return err
			}

			request = fresh[0]
		}

		err := u.putOnce(ctx, object, request)
		if err == nil {
			return nil
		}

		var (
			fault  *ffmpeg.Fault
			status statusError
		)

		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &fault):
			return fault
		case !errors.As(err, &status) || passing(int(status)):
			ambiguous = true
		case int(status) == http.StatusPreconditionFailed && ambiguous:
			return nil // the try whose answer was lost had succeeded
		case refused(int(status)) && refusals < maxRefusals:
			refusals++
			request = nil
		default:
			return transferFailed("The store refused a result.", err)
		}

		if try >= minTries && time.Since(started) > u.pacing.patience {
			return transferFailed("A result could not be written to the store.", err)
		}

		if !waitFor(ctx, nil, jitter(pause)) {
			return context.Cause(ctx)
		}

		pause = min(2*pause, u.pacing.maxPause)
	}
}

// putOnce makes one try. A *ffmpeg.Fault is final; any other error may pass.
func (u *uploader) putOnce(ctx context.Context, object *tcoderv1.EncodedObject, signed *tcoderv1.SignedRequest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	file, err := u.open(object)
	if err != nil {
		return err
	}

	// The store needs longer to answer a large upload than to send some bytes.
	stall := 3 * u.pacing.stall

	watchdog := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watchdog.Stop()

	body := io.ReadCloser(&watchedFile{file: file, onRead: func() { watchdog.Reset(stall) }})
	if object.GetSizeBytes() == 0 {
		_ = file.Close()
		body = http.NoBody
	}

	request, err := http.NewRequestWithContext(ctx, http.MethodPut, signed.GetUrl(), body)
	if err != nil {
		_ = file.Close()

		return transferFailed("The address of a result is not one of a store.", err)
	}

	request.ContentLength = int64(object.GetSizeBytes())
	setHeaders(request, signed.GetHeaders())

	response, err := u.client.Do(request)
	if err != nil {
		return fmt.Errorf("put: %w", stallOr(ctx, scrub(err)))
	}
	defer response.Body.Close() //nolint:errcheck // nothing was written

	// Reading the answer to its end lets the next upload use the connection.
	if _, err := io.CopyN(io.Discard, response.Body, 64<<10); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("put: read the answer: %w", stallOr(ctx, scrub(err)))
	}

	if response.StatusCode/100 != 2 {
		return statusError(response.StatusCode)
	}

	return nil
}

func (u *uploader) open(object *tcoderv1.EncodedObject) (*os.File, error) {
	file, err := os.Open(filepath.Join(u.dir, filepath.FromSlash(object.GetName())))
	if err != nil {
		return nil, machineFault("A result could not be read from the worker's disk.", err)
	}

	info, err := file.Stat()
	if err == nil && uint64(info.Size()) == object.GetSizeBytes() {
		return file, nil
	}

	_ = file.Close()

	if err != nil {
		return nil, machineFault("A result could not be read from the worker's disk.", err)
	}

	return nil, changedFault()
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
	file   *os.File
	onRead func()
}

// Read reads from the file.
func (f *watchedFile) Read(into []byte) (int, error) {
	f.onRead()

	return f.file.Read(into)
}

// Close closes the file.
func (f *watchedFile) Close() error { return f.file.Close() }
