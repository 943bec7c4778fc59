package memstore

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Config says what a store takes its time and its chance from.
type Config struct {
	Clock  func() time.Time // nil: time.Now
	Jitter func() float64   // uniform in [0, 1), for backoffs; nil: random
}

// Store is a [pipeline.Store] in memory. It is safe for concurrent use.
type Store struct {
	clock  func() time.Time
	jitter func() float64

	mu     sync.Mutex
	offset time.Duration

	jobs     map[string]*job
	uploads  map[string]*upload
	workers  map[string]*worker
	machines map[string]*pipeline.Machine
	keys     map[idempotencyKey]idempotent
	duties   map[dutyName]time.Time // when each is handed out next
	purges   map[string]purge       // by the id of the deleted job
	leased   map[*task]struct{}
	delayed  map[*task]struct{}
	turns    turns
	session  int64

	leader string
	until  time.Time // leadership
	term   int64     // of leadership
	swept  time.Time // the newest sweep
	next   time.Time // when the sweeper comes by itself; zero: nobody knows

	change  pipeline.PoolChange
	version int64 // of change
	report  pipeline.PoolReport
	taken   map[string]time.Time // when the turns that were taken are over, by name

	jobWatchers  map[string]map[*jobWatcher]struct{}
	wakeWatchers map[*wakeWatcher]struct{}

	// What one step gathers; see begin.
	now      time.Time
	changed  map[*job]struct{}
	touched  map[string]struct{} // projects
	wakes    map[pipeline.Wake]struct{}
	earliest time.Time // deadline that this step set
}

var _ pipeline.Store = (*Store)(nil)

// New returns an empty store.
func New(cfg Config) *Store {
	s := &Store{
		clock: cfg.Clock, jitter: cfg.Jitter,
		jobs: map[string]*job{}, uploads: map[string]*upload{}, workers: map[string]*worker{},
		machines: map[string]*pipeline.Machine{}, keys: map[idempotencyKey]idempotent{},
		duties: map[dutyName]time.Time{}, purges: map[string]purge{},
		taken:  map[string]time.Time{},
		leased: map[*task]struct{}{}, delayed: map[*task]struct{}{}, turns: newTurns(),
		jobWatchers: map[string]map[*jobWatcher]struct{}{}, wakeWatchers: map[*wakeWatcher]struct{}{},
		changed: map[*job]struct{}{}, touched: map[string]struct{}{}, wakes: map[pipeline.Wake]struct{}{},
	}

	if s.clock == nil {
		s.clock = time.Now
	}

	if s.jitter == nil {
		s.jitter = rand.Float64
	}

	return s
}

// AdvanceClock moves the store's clock relative to its source.
func (s *Store) AdvanceClock(_ context.Context, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.offset += d

	return nil
}

// begin starts a step; what it returns ends it. Whatever changed meanwhile is
// told at the end, once.
func (s *Store) begin() (end func()) {
	s.mu.Lock()
	s.now = s.clock().Add(s.offset).UTC().Truncate(time.Millisecond)

	return func() {
		s.settle()
		s.mu.Unlock()
	}
}

func (s *Store) settle() {
	for name := range s.touched {
		if s.turns.place(name) {
			s.wake(pipeline.WakeReady)
		}
	}

	for j := range s.changed {
		s.notify(j.rec.ID, pipeline.JobNotice{Sequence: j.rec.Sequence})
	}

	if !s.earliest.IsZero() && (s.next.IsZero() || s.earliest.Before(s.next)) {
		s.next = s.earliest
		s.wake(pipeline.WakeDue)
	}

	for w := range s.wakeWatchers {
		w.push(s.wakes)
	}

	clear(s.touched)
	clear(s.changed)
	clear(s.wakes)

	s.earliest = time.Time{}
}

func (s *Store) wake(w pipeline.Wake) { s.wakes[w] = struct{}{} }

// due notes a deadline that the step set.
func (s *Store) due(at time.Time) {
	if s.earliest.IsZero() || at.Before(s.earliest) {
		s.earliest = at
	}
}

// passed reports whether a moment is now or was before.
func (s *Store) passed(at time.Time) bool { return !at.After(s.now) }
