package worker

import (
	"context"
	"net/http"
	"slices"
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
	pacing    transferPacing
	onFailure func(error)
	backlog   *backlog
	// maxPut is the most that the store takes in one PUT, 0 without a bound; step
	// writes larger objects.
	maxPut uint64
	step   stepper
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
		client: client, sign: sign, backlog: backlog, pacing: pacing, onFailure: onFailure, onStored: onStored,
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

		requests, err := u.signWhole(ctx, batch)
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

// signWhole gets requests for the objects of a batch; none for those that are
// written in parts.
func (u *uploader) signWhole(ctx context.Context, batch []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
	whole := slices.DeleteFunc(slices.Clone(batch), u.inParts)
	if len(whole) == 0 {
		return make([]*tcoderv1.SignedRequest, len(batch)), nil
	}

	signed, err := u.sign.patiently(ctx, u.pacing, whole)
	if err != nil || len(whole) == len(batch) {
		return signed, err
	}

	requests := make([]*tcoderv1.SignedRequest, len(batch))

	for i, object := range batch {
		if !u.inParts(object) {
			requests[i], signed = signed[0], signed[1:]
		}
	}

	return requests, nil
}

// store uploads one object, and makes room on the disk for what follows.
func (u *uploader) store(ctx context.Context, object *tcoderv1.EncodedObject, request *tcoderv1.SignedRequest) error {
	if err := u.write(ctx, object, request); err != nil {
		return err
	}

	if err := ffmpeg.RemoveResult(u.backlog.dir, object.GetName()); err != nil {
		return machineFault("A result could not be removed from the worker's disk.", err)
	}

	u.backlog.shrink(object.GetSizeBytes())
	u.onStored(object.GetName())

	return nil
}

// write uploads one object, by one PUT or in parts.
func (u *uploader) write(ctx context.Context, object *tcoderv1.EncodedObject, request *tcoderv1.SignedRequest) error {
	if u.inParts(object) {
		return u.putParts(ctx, object)
	}

	_, err := u.put(ctx, upload{
		object: object, size: int64(object.GetSizeBytes()),
		sign: func(ctx context.Context) (*tcoderv1.SignedRequest, error) {
			fresh, err := u.sign.patiently(ctx, u.pacing, []*tcoderv1.EncodedObject{object})
			if err != nil {
				return nil, err
			}

			return fresh[0], nil
		},
	}, request)

	return err
}
