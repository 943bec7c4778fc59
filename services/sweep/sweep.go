// Package sweep does what time makes due: leases that ran out, delayed tasks,
// uploads past their deadline, and the duties that state changes leave behind
// (publish, clean, purge).
//
// Every replica runs a Sweeper and the store lets one of them lead. The
// leader sleeps until the next deadline, or until it is told of an earlier
// one; with nothing due, renewing the lead and looking is one call, some time
// before the lead would end. A replica that stops resigns, so that another takes
// over at once; one that dies is replaced when its time runs out. All work is
// safe to be done twice, so two replicas that both believe to lead do no harm.
//
// A lost store costs time alone: the Sweeper tries again with backoff.
package sweep

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	firstBackoff  = 100 * time.Millisecond
	maxBackoff    = 2 * time.Second // bounds how late a lease is swept after an outage
	minPause      = 5 * time.Millisecond
	callTimeout   = 10 * time.Second
	resignTimeout = 2 * time.Second
	dutyTimeout   = 10 * time.Minute
	streamTimeout = 8 * time.Second // the duty comes again after 10 s
	dutiesAtOnce  = 8
	endsAtOnce    = 8
	streamsAtOnce = 16
	// manyDuties that wait for their turn are a reason to put off removals.
	manyDuties     = 1000
	defaultLeadTTL = 18 * time.Second
	// tellEvery is the least time between two sweeps that say which workers are
	// attached: they are many, and busy sweepers sweep often. The store lists
	// those that were seen within a minute.
	tellEvery = 10 * time.Second
)

// Config says how to sweep.
type Config struct {
	// Replica names this control plane among those of the deployment. One
	// that keeps its name over a restart leads again at once, even after it
	// was killed.
	Replica string
	// LeaderTTL is how long a leader that is silent stays it (0: 18 s).
	LeaderTTL time.Duration
	// Lease is how long leases last after each renewal.
	Lease time.Duration
	// Retry is the policy for leases that ran out.
	Retry pipeline.RetryPolicy
	// Retention is how long a terminal job is kept, with its events and
	// objects (0: for ever).
	Retention time.Duration
}

// Store is what sweeping needs of the store.
type Store interface {
	pipeline.SweepStore
	GetJob(ctx context.Context, id string) (pipeline.Job, error)
	Wakes(ctx context.Context) (<-chan pipeline.Wake, error)
}

// Outputs is the bucket of outputs.
type Outputs interface {
	objectstore.Objects
	AbortMultipart(ctx context.Context, key, uploadID string) error
	ListMultipart(ctx context.Context, prefix string, visit func(key, uploadID string) error) error
}

// Deps are what a Sweeper works with.
type Deps struct {
	Store Store
	// In is the bucket of sources.
	In  objectstore.Objects
	Out Outputs
	// Attached names the workers whose streams this replica holds: the tick shows
	// them to be there, so that idle ones need no call of their own. May be nil.
	Attached func() []string
	// ExpireUpload completes an upload whose object is there after all, and
	// expires it otherwise. An upload that has ended is no error.
	ExpireUpload func(ctx context.Context, uploadID string) error
	// Publish publishes a job whose tasks are done.
	Publish func(ctx context.Context, jobID string) error
	// Stream publishes what is committed of a job that runs, and ends the duty.
	Stream func(ctx context.Context, jobID string) error
	Log    *slog.Logger
}

// Sweeper sweeps while Run does.
type Sweeper struct {
	cfg     Config
	deps    Deps
	lead    atomic.Pointer[lead] // nil: another replica's
	elected chan struct{}
	turns   chan struct{} // bounds the duties at work
	ends    chan struct{} // bounds those that jobs wait for to end
	streams chan struct{} // bounds those that publish streams
	duties  sync.WaitGroup
	told    time.Time // when a sweep last said who is attached; Run's alone
	held    int64     // the term of the last sweep that was answered; Run's alone

	mu    sync.Mutex
	begun map[dutyKey]bool // true: it is to be done once more
}

type dutyKey struct {
	kind pipeline.DutyKind
	id   string
}

// New starts nothing; Run does.
func New(cfg Config, deps Deps) *Sweeper {
	if cfg.LeaderTTL == 0 {
		cfg.LeaderTTL = defaultLeadTTL
	}
	return &Sweeper{
		cfg:     cfg,
		deps:    deps,
		elected: make(chan struct{}, 1),
		turns:   make(chan struct{}, dutiesAtOnce),
		ends:    make(chan struct{}, endsAtOnce),
		streams: make(chan struct{}, streamsAtOnce),
		begun:   map[dutyKey]bool{},
	}
}

// lead is this replica's, as long as nothing but time ends it.
type lead struct {
	term  int64
	until time.Time
}

// Term is of this replica's lead; 0 if it has none, as far as can be known
// without asking: a process that was paused doesn't lead when it goes on, if
// its time has run out by then.
func (s *Sweeper) Term() int64 {
	if l := s.lead.Load(); l != nil && time.Now().Before(l.until) {
		return l.term
	}
	return 0
}

// Elected receives after this replica became the leader.
func (s *Sweeper) Elected() <-chan struct{} { return s.elected }

// Run sweeps until ctx ends, resigns, and returns nil when no duty is at work.
func (s *Sweeper) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	due := make(chan struct{}, 1)
	watching.Go(func() { s.watch(ctx, due) })

	backoff := firstBackoff
	for ctx.Err() == nil {
		pause, err := s.sweep(ctx)
		if err != nil {
			s.deps.Log.WarnContext(ctx, "sweep failed, trying again", "error", err, "backoff", backoff)
			pause, backoff = jitter(backoff), min(2*backoff, maxBackoff)
		} else {
			backoff = firstBackoff
		}
		s.wait(ctx, due, pause, err == nil)
	}
	s.lead.Store(nil)
	s.duties.Wait()
	watching.Wait()
	s.resign(ctx)
	return nil
}

// waiting is how many duties have begun, or wait for their turn.
func (s *Sweeper) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.begun)
}

// wait sleeps until the pause is over, or something is due earlier.
func (s *Sweeper) wait(ctx context.Context, due <-chan struct{}, pause time.Duration, wakeable bool) {
	if !wakeable {
		due = nil // an outage isn't shortened by looking more often
	}
	timer := time.NewTimer(max(pause, minPause))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-due:
	case <-timer.C:
	}
}

// sweep sweeps once and returns when to do it again.
func (s *Sweeper) sweep(ctx context.Context) (time.Duration, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var attached []string
	began := time.Now()
	if s.deps.Attached != nil && began.Sub(s.told) >= tellEvery {
		attached = s.deps.Attached()
	}
	swept, err := s.deps.Store.Sweep(callCtx, pipeline.SweepRequest{
		Replica: s.cfg.Replica, LeaderTTL: s.cfg.LeaderTTL, Lease: s.cfg.Lease, Retry: s.cfg.Retry,
		Retention: s.cfg.Retention, Attached: attached, Term: s.held, Busy: s.waiting() > manyDuties,
	})
	if err != nil {
		s.lead.Store(nil) // not known; nobody may act on it
		return 0, err
	}
	if attached != nil {
		s.told = began
	}
	s.took(ctx, swept, began)
	if swept.Requeued > 0 || swept.Dead > 0 {
		s.deps.Log.WarnContext(ctx, "leases ran out", "requeued", swept.Requeued, "dead", swept.Dead)
	}
	for _, d := range swept.Duties {
		s.start(ctx, d)
	}
	if swept.Leader {
		// Early enough that no follower, who looks when the lead ends, gets it.
		return min(swept.NextDue, s.cfg.LeaderTTL*5/6), nil
	}
	return min(swept.NextDue, s.cfg.LeaderTTL), nil
}

// took notes what a sweep said of the lead. It lasts from before the store was
// asked, lest it seem longer than it is.
func (s *Sweeper) took(ctx context.Context, swept pipeline.Swept, began time.Time) {
	if !swept.Leader {
		s.held = 0
		s.lead.Store(nil)
		return
	}
	s.held = swept.Term
	was := s.lead.Swap(&lead{swept.Term, began.Add(s.cfg.LeaderTTL)})
	// Where a lead has lapsed and goes on in its term, what is done as the leader rests.
	if was == nil || was.term != swept.Term || !time.Now().Before(was.until) {
		s.deps.Log.InfoContext(ctx, "leading", "replica", s.cfg.Replica, "term", swept.Term)
		signal(s.elected)
	}
}

// watch tells of deadlines that were set meanwhile.
func (s *Sweeper) watch(ctx context.Context, due chan<- struct{}) {
	for ctx.Err() == nil {
		wakes, err := s.deps.Store.Wakes(ctx)
		if err != nil {
			s.wait(ctx, nil, jitter(maxBackoff), true)
			continue
		}
		signal(due) // for what came before anybody listened
		for wake := range wakes {
			if wake == pipeline.WakeDue {
				signal(due)
			}
		}
	}
}

// resign lets another replica lead at once. If it can't, that one waits until
// our time runs out.
func (s *Sweeper) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTimeout)
	defer cancel()
	if err := s.deps.Store.Resign(ctx, s.cfg.Replica); err != nil {
		s.deps.Log.WarnContext(ctx, "lead can't be given up", "error", err)
	}
}

// signal sends to a channel of one, unless a signal waits there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// jitter varies a pause by a fifth, so that replicas don't come at once.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // not a secret
}
