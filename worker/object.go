package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// The pace of reading. A range is read in windows, so that a reader that seeks
// away wastes little; they grow while it stays.
const (
	firstWindowBytes = 512 << 10
	maxWindowBytes   = 8 << 20
	blockBytes       = 64 << 10
	readAheadBlocks  = 32
)

// transferPacing bounds how long a transfer is tried.
type transferPacing struct {
	firstPause time.Duration // after the first failure; doubled after each further one
	maxPause   time.Duration
	stall      time.Duration // a connection on which nothing moves for so long is given up
	patience   time.Duration // without a byte for so long, the transfer has failed
}

func defaultPacing() transferPacing {
	return transferPacing{
		firstPause: 100 * time.Millisecond,
		maxPause:   5 * time.Second,
		stall:      20 * time.Second,
		patience:   50 * time.Second, // below FFmpeg's stall timeout, which would hide the cause
	}
}

// object reads ranges of one object of the store by a grant.
type object struct {
	client    *http.Client
	grant     *grant
	sizeBytes int64
	pacing    transferPacing

	mu      sync.Mutex
	etag    string           // pinned by the assignment, or by the first answer; bare
	failure error            // final: the bytes can't be had
	trouble error            // of the last reader that left empty-handed
	readers map[*reader]bool // the ones under way
}

func newObject(client *http.Client, grant *grant, sizeBytes int64, etag string, pacing transferPacing) *object {
	return &object{
		client: client, grant: grant, sizeBytes: sizeBytes, etag: bareETag(etag), pacing: pacing,
		readers: map[*reader]bool{},
	}
}

func (o *object) size() int64 { return o.sizeBytes }

// transferError returns why a reader did not get, or is not getting, its bytes.
func (o *object) transferError() error {
	o.mu.Lock()
	defer o.mu.Unlock()

	if o.failure != nil {
		return o.failure
	}

	for r := range o.readers {
		if r.hungry && r.trouble != nil {
			return transferFailed("The source could not be read from the store.", r.trouble)
		}
	}

	if o.trouble != nil {
		return transferFailed("The source could not be read from the store.", o.trouble)
	}

	return nil
}

// reader is one pass over a range. Its fields belong to object.mu.
type reader struct {
	hungry  bool  // emit has nothing to do
	trouble error // why the last request failed; nil once bytes flow
}

// read hands out bytes [from, to) in order, reading a little ahead, through
// broken connections and expired requests. It returns an error of emit or of
// ctx, or what transferError tells from then on.
func (o *object) read(ctx context.Context, from, to int64, emit func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)

	r := &reader{}
	blocks := make(chan []byte, readAheadBlocks)
	failed := make(chan error, 1)

	o.mu.Lock()
	o.readers[r] = true
	o.mu.Unlock()

	go func() {
		defer close(blocks)
		failed <- o.fetch(ctx, r, from, to, func(block []byte) error {
			select {
			case blocks <- block:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()

	err := o.drain(r, blocks, emit)
	cancel(io.ErrClosedPipe)

	for range blocks { // until the fetching goroutine has ended
	}

	o.mu.Lock()
	delete(o.readers, r)

	if r.hungry {
		o.trouble = r.trouble
	}
	o.mu.Unlock()

	if err != nil {
		return err
	}

	return <-failed
}

// drain emits blocks until there are no more.
func (o *object) drain(r *reader, blocks <-chan []byte, emit func([]byte) error) error {
	for {
		o.mu.Lock()
		r.hungry = true
		o.mu.Unlock()

		block, ok := <-blocks
		if !ok {
			return nil
		}

		o.mu.Lock()
		r.hungry = false
		o.trouble = nil
		o.mu.Unlock()

		if err := emit(block); err != nil {
			return err
		}
	}
}

// fetch requests window after window.
func (o *object) fetch(ctx context.Context, r *reader, from, to int64, emit func([]byte) error) error {
	window := int64(firstWindowBytes)
	pause := o.pacing.firstPause
	moved := time.Now()

	for from < to {
		request, replaced := o.grant.current()

		n, err := o.fetchWindow(ctx, request.GetUrl(), request.GetHeaders(), from, min(to, from+window), emit)
		from += n

		if n > 0 {
			pause = o.pacing.firstPause
			moved = time.Now()
		}

		if ctx.Err() != nil {
			return context.Cause(ctx) // the reader left: no trouble of the store's
		}

		o.note(r, err)

		var fault *ffmpeg.Fault

		switch {
		case err == nil:
			window = min(2*window, maxWindowBytes)

			continue
		case !errors.As(err, &fault) && time.Since(moved) < o.pacing.patience:
		default:
			return o.fail(err)
		}

		// A fresh request, if the last one expired, is waited for no longer than
		// any other recovery: a store may also refuse a request in passing.
		if !waitFor(ctx, replaced, jitter(pause)) {
			return context.Cause(ctx)
		}

		pause = min(2*pause, o.pacing.maxPause)
	}

	return nil
}

func (o *object) note(r *reader, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()

	r.trouble = err
}

// fail remembers that the bytes can't be had.
func (o *object) fail(err error) error {
	var fault *ffmpeg.Fault
	if !errors.As(err, &fault) {
		fault = transferFailed("The source could not be read from the store.", err)
	}

	o.mu.Lock()
	defer o.mu.Unlock()

	if o.failure == nil {
		o.failure = fault
	}

	return o.failure
}

// fetchWindow makes one request for bytes [from, to) and returns how many it
// emitted. A *ffmpeg.Fault is final; any other error may pass.
func (o *object) fetchWindow(
	ctx context.Context, address string, headers map[string]string, from, to int64, emit func([]byte) error,
) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	watchdog := time.AfterFunc(o.pacing.stall, func() { cancel(errStalled) })
	defer watchdog.Stop()

	request, err := o.request(ctx, address, headers, from, to)
	if err != nil {
		return 0, err
	}

	response, err := o.client.Do(request) //nolint:gosec // the control plane signed the address, and redirects aren't followed
	if err != nil {
		return 0, fmt.Errorf("get: %w", stallOr(ctx, scrub(err)))
	}
	defer response.Body.Close() //nolint:errcheck // nothing was written

	if err := o.check(response, from); err != nil {
		return 0, err
	}

	var n int64

	for from+n < to {
		block := make([]byte, min(blockBytes, to-from-n))

		watchdog.Reset(o.pacing.stall)

		got, err := io.ReadFull(response.Body, block)

		watchdog.Stop() // the reader may take its time

		if got > 0 {
			if err := emit(block[:got]); err != nil {
				return n, err
			}

			n += int64(got)
		}

		if err != nil {
			return n, fmt.Errorf("read: %w", stallOr(ctx, scrub(err)))
		}
	}

	return n, nil
}

func (o *object) request(
	ctx context.Context, address string, headers map[string]string, from, to int64,
) (*http.Request, error) {
	where, err := url.Parse(address)
	if err != nil || (where.Scheme != "http" && where.Scheme != "https") || where.Host == "" {
		return nil, transferFailed("The source's address is not one of a store.", nil)
	}

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil) //nolint:gosec // the control plane signed it
	if err != nil {
		return nil, transferFailed("The source's address is not one of a store.", err)
	}

	setHeaders(request, headers)
	request.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))

	if etag := o.pinned(); etag != "" {
		request.Header.Set("If-Match", `"`+etag+`"`)
	}

	return request, nil
}

func (o *object) pinned() string {
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.etag
}

// check judges the head of an answer.
func (o *object) check(response *http.Response, from int64) error {
	switch code := response.StatusCode; {
	case code == http.StatusPartialContent:
		unit, total, _ := strings.Cut(response.Header.Get("Content-Range"), "/")
		if !strings.HasPrefix(unit, fmt.Sprintf("bytes %d-", from)) {
			return transferFailed("The store answered with another range than asked for.", nil)
		}

		if total != "*" && total != strconv.FormatInt(o.sizeBytes, 10) {
			return replacedFault()
		}
	case code == http.StatusOK:
		if from > 0 {
			return transferFailed("The store doesn't answer range requests.", nil)
		}

		if response.ContentLength >= 0 && response.ContentLength != o.sizeBytes {
			return replacedFault()
		}
	case code == http.StatusNotFound, code == http.StatusGone:
		return inputMissing("The source is no longer in the store.")
	case code == http.StatusPreconditionFailed, code == http.StatusRequestedRangeNotSatisfiable:
		return replacedFault()
	case refused(code), passing(code):
		return statusError(code)
	default:
		return transferFailed("The store refused to hand out the source.", statusError(code))
	}

	return o.pin(response.Header.Get("ETag"))
}

// pin holds the source to the version that was first seen.
func (o *object) pin(etag string) error {
	o.mu.Lock()
	defer o.mu.Unlock()

	etag = bareETag(etag)
	if o.etag == "" {
		o.etag = etag
	}

	if etag != "" && etag != o.etag {
		return replacedFault()
	}

	return nil
}

// bareETag is an ETag without the quotes of its header, and without the mark of
// weakness that a proxy may put before it: objects of a store are compared byte
// for byte.
func bareETag(etag string) string {
	return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
}

func replacedFault() *ffmpeg.Fault {
	return inputMissing("The source was replaced in the store after the job was made.")
}
