package worker

import (
	"context"
	"errors"
	"net/http"
	"sort"
	"sync"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// pieces are objects of the store that read as one, one after the other.
type pieces struct {
	client *http.Client
	sign   signer
	pacing transferPacing
	list   []*tcoderv1.Piece
	starts []int64 // where each begins; one more is the size of all

	mu       sync.Mutex
	requests map[int]*tcoderv1.SignedRequest
	failure  error // final: the bytes can't be had
}

func newPieces(client *http.Client, sign signer, pacing transferPacing, list []*tcoderv1.Piece) *pieces {
	p := &pieces{client: client, sign: sign, pacing: pacing, list: list, requests: map[int]*tcoderv1.SignedRequest{}}

	var at int64
	for _, piece := range list {
		p.starts = append(p.starts, at)
		at += int64(piece.GetSizeBytes())
	}

	p.starts = append(p.starts, at)

	return p
}

func (p *pieces) size() int64 { return p.starts[len(p.list)] }

func (p *pieces) transferError() error {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.failure
}

func (p *pieces) read(ctx context.Context, from, to int64, emit func([]byte) error) error {
	// The first piece that ends after from.
	at := sort.Search(len(p.list), func(i int) bool { return p.starts[i+1] > from })

	for ; at < len(p.list) && from < to; at++ {
		request, err := p.request(ctx, at)
		if err != nil {
			return p.failed(ctx, err)
		}

		start, end := p.starts[at], min(to, p.starts[at+1])
		piece := newObject(p.client, newGrant(request), int64(p.list[at].GetSizeBytes()), "", p.pacing)

		if err := piece.read(ctx, from-start, end-start, emit); err != nil {
			if failure := piece.transferError(); failure != nil {
				return p.failed(ctx, failure)
			}

			return err // the reader left
		}

		from = end
	}

	return nil
}

// request is a signed request for one piece. They are asked for in batches.
func (p *pieces) request(ctx context.Context, at int) (*tcoderv1.SignedRequest, error) {
	p.mu.Lock()
	request := p.requests[at]
	p.mu.Unlock()

	if request != nil && !expiresSoon(request) {
		return request, nil
	}

	var batch []*tcoderv1.EncodedObject
	for _, piece := range p.list[at:min(at+signBatch, len(p.list))] {
		batch = append(batch, &tcoderv1.EncodedObject{Name: piece.GetName(), SizeBytes: piece.GetSizeBytes()})
	}

	requests, err := p.sign.patiently(ctx, p.pacing, batch)
	if err != nil {
		return nil, err
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	clear(p.requests) // readers go forward

	for i, request := range requests {
		p.requests[at+i] = request
	}

	return requests[0], nil
}

// failed remembers that the bytes can't be had. What is missing was made by
// this job: that is no fault of its input.
func (p *pieces) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}

	var fault *ffmpeg.Fault
	if !errors.As(err, &fault) || fault.Class == tcoderv1.FaultClass_FAULT_CLASS_INPUT {
		err = transferFailed("A segment could not be read from the store.", err)
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	if p.failure == nil {
		p.failure = err
	}

	return p.failure
}
