package worker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sort"
	"sync"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// What is fetched before its reader comes to it: each segment costs a request,
// which a reader would wait for.
const (
	aheadPieces = 4
	aheadBytes  = 16 << 20
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
	ahead, leave := context.WithCancelCause(ctx)

	var fetching sync.WaitGroup

	defer fetching.Wait()
	defer leave(io.ErrClosedPipe)

	// The first piece that ends after from, and the one after the last.
	at := sort.Search(len(p.list), func(i int) bool { return p.starts[i+1] > from })
	end := sort.Search(len(p.list), func(i int) bool { return p.starts[i] >= to })

	var fetches []*fetch // of piece at, and of those after it

	for ; at < end; at++ {
		for next := at + len(fetches); next < p.reach(at, end); next++ {
			f := &fetch{blocks: make(chan []byte, aheadBytes/blockBytes)}
			fetches = append(fetches, f)

			request, err := p.request(ctx, next)
			if err != nil {
				f.err = err
				close(f.blocks)

				end = next + 1

				break
			}

			start := p.starts[next]
			piece := newObject(p.client, newGrant(request), int64(p.list[next].GetSizeBytes()), "", p.pacing)

			fetching.Go(func() { f.run(ahead, piece, max(from, start)-start, min(to, p.starts[next+1])-start) })
		}

		for block := range fetches[0].blocks {
			if err := emit(block); err != nil {
				return err // the reader left
			}
		}

		if err := fetches[0].err; err != nil {
			return p.failed(ctx, err)
		}

		fetches = fetches[1:]
	}

	return nil
}

// reach is the piece up to which is fetched while piece at is read: together
// they are few, and aheadBytes at most unless piece at alone is more.
func (p *pieces) reach(at, end int) int {
	next := at + 1
	for next < min(end, at+1+aheadPieces) && p.starts[next+1]-p.starts[at] <= aheadBytes {
		next++
	}

	return next
}

// fetch is a piece on its way, maybe before its reader comes to it.
type fetch struct {
	blocks chan []byte
	err    error // why the piece isn't whole; to be read once blocks is closed
}

func (f *fetch) run(ctx context.Context, piece *object, from, to int64) {
	defer close(f.blocks)

	f.err = piece.read(ctx, from, to, func(block []byte) error {
		select {
		case f.blocks <- block:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})

	if failure := piece.transferError(); f.err != nil && failure != nil {
		f.err = failure
	}
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
