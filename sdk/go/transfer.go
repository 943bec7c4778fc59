package tcoder

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

const (
	// A URL is signed again when it has less than this left.
	signMargin = 10 * time.Second
	// A store that refuses freshly signed requests so often means it.
	maxRefusals = 2
	// Above this a request waits for the store's word before it sends its body.
	expectContinueAbove = 1 << 20
	// A store that refuses a request says why in a few lines of XML.
	maxRefusalBytes = 8 << 10
)

var (
	errAlreadyStored = errors.New("the object is stored already")
	errSourceShort   = errors.New("the file is shorter than declared; it may have changed while it was sent")
)

func expiresSoon(r *tcoderv1.SignedRequest) bool {
	return r.GetExpiresAt() != nil && time.Until(r.GetExpiresAt().AsTime()) < signMargin
}

// put sends a piece by a signed request and returns its ETag. It is sent again
// after a lost connection or an error of the store, and signed again when the
// store says no, for the request may have expired.
func (c *Client) put(ctx context.Context, p piece, request *tcoderv1.SignedRequest,
	sign func(context.Context) (*tcoderv1.SignedRequest, error),
) (string, error) {
	retry := c.newRetrier()
	refusals := 0
	for {
		if expiresSoon(request) {
			refusals = maxRefusals // what comes is fresh
			fresh, err := sign(ctx)
			if err != nil {
				return "", alreadyStored(err)
			}
			request = fresh
		}
		etag, err := c.putOnce(ctx, p, request)
		var refused *refusedError
		switch {
		case err == nil:
			return etag, nil
		case ctx.Err() != nil:
			return "", contextError(ctx)
		case errors.As(err, &refused) && refused.exists():
			return "", nil // an earlier try arrived; CompleteUpload checks it
		case errors.As(err, &refused) && !refused.temporary():
			if refusals++; refusals >= maxRefusals {
				return "", storeError("the object store refused the upload", err)
			}
			if request, err = sign(ctx); err != nil {
				return "", alreadyStored(err)
			}
		case isSourceError(err):
			return "", brokenSource(err)
		case !retry.wait(ctx, 0):
			if ctx.Err() != nil {
				return "", contextError(ctx)
			}

			return "", storeError("the upload to the object store failed", err)
		}
	}
}

// alreadyStored turns errAlreadyStored into success.
func alreadyStored(err error) error {
	if errors.Is(err, errAlreadyStored) {
		return nil
	}

	return err
}

func (c *Client) putOnce(ctx context.Context, p piece, signed *tcoderv1.SignedRequest) (string, error) {
	p.sent(0)
	body := &pieceReader{ctx: ctx, section: io.NewSectionReader(p.source, p.offset, p.size), want: p.size, sent: p.sent}
	req, err := http.NewRequestWithContext(ctx, signed.GetMethod(), signed.GetUrl(), body)
	if err != nil {
		return "", errors.New("the server gave a URL that can't be used") //nolint:err113 // never holds the URL
	}
	req.ContentLength = p.size
	if p.size > expectContinueAbove {
		req.Header.Set("Expect", "100-continue") // an expired URL is refused before the bytes are sent
	}
	for name, value := range signed.GetHeaders() {
		req.Header.Set(name, value)
	}
	res, err := c.transfer.Do(req)
	if err != nil {
		if broken := body.failure(); broken != nil {
			return "", broken
		}

		return "", withoutURL(err)
	}
	defer res.Body.Close() //nolint:errcheck // only read
	if res.StatusCode/100 != 2 {
		return "", refusal(res)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return "", withoutURL(err)
	}
	p.sent(p.size)

	return strings.Trim(res.Header.Get("ETag"), `"`), nil
}

// pieceReader reads a piece as the body of a request.
type pieceReader struct {
	ctx     context.Context //nolint:containedctx // Read has none of its own
	section *io.SectionReader
	want    int64
	sent    func(int64)

	mu     sync.Mutex
	read   int64
	broken error
}

// Read implements io.Reader. A source that ends early is an error.
func (r *pieceReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // as http expects it
	}
	n, err := r.section.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read += int64(n)
	switch {
	case errors.Is(err, io.EOF) && r.read < r.want:
		err = &sourceReadError{errSourceShort}
	case err != nil && !errors.Is(err, io.EOF):
		err = &sourceReadError{err}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.broken = err
	}
	if r.sent != nil && n > 0 {
		r.sent(r.read)
	}

	return n, err //nolint:wrapcheck // io.EOF has to stay what it is
}

func (r *pieceReader) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()

	return r.broken
}

// sourceReadError is an error of the caller's source, not of the network.
type sourceReadError struct{ error }

func (f *sourceReadError) Unwrap() error { return f.error }

func isSourceError(err error) bool {
	var failure *sourceReadError

	return errors.As(err, &failure)
}

func brokenSource(err error) error {
	if errors.Is(err, errSourceShort) {
		e := invalid(tcoderv1.ErrorReason_ERROR_REASON_SIZE_INVALID, errSourceShort.Error())
		e.cause = err

		return e
	}

	return fmt.Errorf("tcoder: read the source: %w", err)
}

// refusedError is an answer of the object store other than success.
type refusedError struct {
	status int
	code   string // of S3: AccessDenied
}

func (e *refusedError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("HTTP %d %s", e.status, e.code))
}

// temporary reports whether the same request may succeed later.
func (e *refusedError) temporary() bool {
	return e.status >= http.StatusInternalServerError || e.status == http.StatusTooManyRequests ||
		e.status == http.StatusRequestTimeout || e.code == "RequestTimeout" ||
		e.status == http.StatusConflict // two writes met
}

// exists reports whether the object was there already.
func (e *refusedError) exists() bool {
	return e.status == http.StatusPreconditionFailed
}

func refusal(res *http.Response) *refusedError {
	e := &refusedError{status: res.StatusCode}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxRefusalBytes))
	if err != nil {
		return e // the status has to do
	}
	var told struct {
		Code string `xml:"Code"`
	}
	if xml.Unmarshal(body, &told) == nil {
		e.code = told.Code
	}

	return e
}

func storeError(message string, err error) *Error {
	return &Error{
		Code:    connect.CodeUnavailable,
		Reason:  tcoderv1.ErrorReason_ERROR_REASON_OBJECT_STORE_UNAVAILABLE,
		Message: message + ": " + reachFailure(err),
		Remedy:  "check that the object store runs and that this computer can reach it",
		cause:   err,
	}
}

// progress adds up what several transfers have moved, and tells it. It may be
// called from many goroutines; the callback is called from one at a time.
type progress struct {
	total int64
	tell  func(done, total int64)

	mu    sync.Mutex
	parts map[uint32]int64
	sum   int64
	told  int64
}

func newProgress(total int64, tell func(done, total int64)) *progress {
	return &progress{total: total, tell: tell, parts: make(map[uint32]int64), told: -1}
}

// part returns the function that sets how much of one part is moved.
func (p *progress) part(number uint32) func(int64) {
	return func(bytes int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.sum += bytes - p.parts[number]
		p.parts[number] = bytes
		p.report(p.sum)
	}
}

func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report(p.total)
}

func (p *progress) report(sum int64) {
	if p.tell != nil && sum > p.told {
		p.told = sum
		p.tell(sum, p.total)
	}
}
