package redisstore

import (
	"context"
	"runtime"
	"sync"
)

// Together makes calls of a verb go to Redis as one, in their order: each
// comes while another one, which isn't there, is in flight.
func (s *Store) Together(verb string, calls []func()) {
	c := s.batches[verb]
	c.mu.Lock()
	c.busy = true
	c.mu.Unlock()

	var group sync.WaitGroup

	for _, call := range calls {
		before, over := c.queued(), make(chan struct{})

		group.Go(func() {
			defer close(over)

			call()
		})

		for waits := true; waits && c.queued() == before; {
			select {
			case <-over: // it was refused before it came here
				waits = false
			default:
				runtime.Gosched()
			}
		}
	}

	c.pass(context.Background())
	group.Wait()
}

func (c *coalescer) queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()

	return len(c.waiting)
}
