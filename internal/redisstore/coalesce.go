package redisstore

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// maxBatch bounds how long one call stops the server: 2 ms, a claim 4.
	maxBatch = 128
	// crowd is how many of those who wait for each call in flight make another
	// one: Redis has work then while answers are read, and calls that it finds
	// together share an fsync. Smaller batches would cost it more than they gain.
	crowd = 48
	// maxFlights is how many calls of a verb are in flight at most.
	maxFlights = 4
	// batchTimeout bounds a call for callers whose contexts it can't follow.
	batchTimeout = 15 * time.Second
)

// request is one caller's part of a call.
type request struct {
	keys  []string
	args  []byte          // packed
	ctx   context.Context //nolint:containedctx // it lives as long as the call
	reply []any
	err   error
	done  chan struct{}
}

// coalescer sends the requests of one verb. While a call is in flight what
// comes waits, and goes in one call when the answer is there, or at once if it
// is a crowd: no timer, and a caller that is alone pays one round trip. It
// needs no goroutine while idle.
type coalescer struct {
	store *Store
	verb  string

	mu      sync.Mutex
	waiting []*request
	flights int // calls that are sent or about to be
	closed  bool
	flusher sync.WaitGroup
}

// do sends a request and returns what follows the code of its answer. If ctx
// ends first, the request may take effect nevertheless.
func (c *coalescer) do(ctx context.Context, keys []string, args ...any) ([]any, error) {
	packed, err := appendArgs(make([]byte, 0, 512), args)
	if err != nil {
		return nil, internalError(c.verb, err)
	}

	r := &request{keys: keys, args: packed, ctx: ctx}

	c.mu.Lock()

	if c.closed {
		c.mu.Unlock()

		return nil, failed(c.verb, redis.ErrClosed)
	}

	if c.flights == 0 {
		c.flights = 1
		c.mu.Unlock()
		// Those who were woken by the same answer come now: they go along,
		// instead of waiting for a call of one. Who is alone goes on at once.
		runtime.Gosched()

		if c.alone() {
			c.send(ctx, []*request{r})
			c.pass(ctx)

			return r.answer()
		}

		c.mu.Lock()
		c.flusher.Go(func() { c.flush(context.WithoutCancel(ctx)) })
	}

	r.done = make(chan struct{})
	c.waiting = append(c.waiting, r)

	if c.flights < maxFlights && len(c.waiting) >= crowd*c.flights {
		c.flights++
		c.flusher.Go(func() { c.flush(context.WithoutCancel(ctx)) })
	}
	c.mu.Unlock()

	select {
	case <-r.done:
		return r.answer()
	case <-ctx.Done():
		return nil, failed(c.verb, context.Cause(ctx))
	}
}

// alone reports whether nobody waits.
func (c *coalescer) alone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()

	return len(c.waiting) == 0
}

// pass hands what came meanwhile to a goroutine, so that the caller need not stay for it.
func (c *coalescer) pass(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if len(c.waiting) == 0 {
		c.flights--
	} else {
		c.flusher.Go(func() { c.flush(context.WithoutCancel(ctx)) })
	}
}

// flush sends batches until nobody waits.
func (c *coalescer) flush(ctx context.Context) {
	for {
		runtime.Gosched() // see do

		batch := c.next()
		if len(batch) == 0 {
			return
		}

		func() {
			ctx, cancel := context.WithTimeout(ctx, batchTimeout)
			defer cancel()

			c.send(ctx, batch)
		}()

		for _, r := range batch {
			close(r.done)
		}
	}
}

// next takes the next batch. Requests of callers that have gone aren't sent.
func (c *coalescer) next() []*request {
	c.mu.Lock()
	defer c.mu.Unlock()

	// What is left of a crowd waits for the other calls.
	if c.flights > 1 && len(c.waiting) < crowd {
		c.flights--

		return nil
	}

	batch := make([]*request, 0, min(len(c.waiting), maxBatch))

	taken := 0
	for _, r := range c.waiting {
		if len(batch) == maxBatch {
			break
		}

		taken++

		if r.ctx.Err() == nil {
			batch = append(batch, r)
		}
	}

	c.waiting = c.waiting[taken:]
	if len(c.waiting) == 0 {
		c.waiting = nil
	}

	if len(batch) == 0 {
		c.flights--
	}

	return batch
}

// send makes one call. What the script itself fails at harms one request
// alone: the others are sent again, one by one, which they may be.
func (c *coalescer) send(ctx context.Context, batch []*request) {
	err := c.call(ctx, batch)
	if err == nil {
		return
	}

	if len(batch) == 1 || pipeline.ReasonOf(err) == pipeline.ReasonStateUnavailable {
		for _, r := range batch {
			r.err = err
		}

		return
	}

	for _, r := range batch {
		if err := c.call(ctx, []*request{r}); err != nil {
			r.err = err
		}
	}
}

func (c *coalescer) call(ctx context.Context, batch []*request) error {
	var keys []string

	args := make([]any, 0, len(batch))

	for _, r := range batch {
		keys = append(keys, r.keys...)
		args = append(args, r.args)
	}

	replies, err := c.store.run(ctx, c.verb, keys, args)
	if err != nil {
		return err
	}

	if len(replies) != len(batch) {
		return internalError(c.verb, errors.New("an answer is missing"))
	}

	for i, r := range batch {
		r.reply = asAnswer(replies[i])
	}

	return nil
}

// answer returns what follows the code of an answer; a code that isn't empty is the reason of a refusal.
func (r *request) answer() ([]any, error) {
	if r.err != nil {
		return nil, r.err
	}

	return accepted(r.reply)
}

// close refuses what comes, and returns when what waits was answered.
func (c *coalescer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.flusher.Wait()
}
