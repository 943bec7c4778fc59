package pool

import (
	"context"
	"sync"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// rosterAge is how old the list of workers may be that a plan is made for: the
// store takes as long for that of thousands as for hundreds of calls.
const rosterAge = time.Second

// roster is the list of workers as it was read last.
type roster struct {
	mu      sync.Mutex
	read    time.Time
	workers []pipeline.Worker
}

// forget has it read again: a worker came or went here.
func (r *roster) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read = time.Time{}
}

// recent returns the workers that there are, or were a moment ago.
func (r *roster) recent(ctx context.Context, store Store) ([]pipeline.Worker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.read) < rosterAge {
		return r.workers, nil
	}
	workers, err := store.ListWorkers(ctx)
	if err != nil {
		return nil, err
	}
	r.read, r.workers = time.Now(), workers
	return workers, nil
}
