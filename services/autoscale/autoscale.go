// Package autoscale keeps the pool's machines at what the waiting work asks
// for: it creates and starts machines while tasks wait for a slot, up to a
// limit that holds whatever races, and clears away those that have stopped,
// broke, or aren't known. Idle workers leave by themselves, by agreement with
// the control plane; a machine whose worker left has stopped.
//
// [Decide] is pure; the [Reconciler] reads a snapshot, decides, and applies.
// Only the leading replica acts, and the store refuses the writes of one that
// another has followed. A machine is reserved in the store before it is asked
// for, and a creation that was cut off is taken up again under the same id, so
// none is leaked and none is made twice. What a dead machine held is given back
// at once, without a charge: nobody waits for its leases.
//
// Growth needs the store alone: a task that becomes ready has its machine asked
// for at once. The provider's list is read now and then, for what machines do
// by themselves; what it says is confirmed before anything is ended by it.
//
// [Reconciler.Run] steps by the real clock. A simulation steps by itself, with a
// clock of its own: [Reconciler.Step] never sleeps.
package autoscale

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// DefaultStartTimeout is Config.StartTimeout if that is 0.
const DefaultStartTimeout = 2 * time.Minute

const (
	// The pauses between two lists of the provider's machines: while something
	// is to be seen soon, while there are machines, and else.
	soonTick  = 2 * time.Second
	busyTick  = 15 * time.Second
	quietTick = 6 * time.Minute

	readTimeout         = 10 * time.Second
	actionTimeout       = 2 * time.Minute
	defaultActions      = 8
	defaultCreations    = 3
	defaultStopTimeout  = 2 * time.Minute
	defaultStartLatency = 5 * time.Second
)

// Config says how a pool behaves.
type Config struct {
	// Settings are those that can be changed later, as they are at the start.
	Settings pipeline.PoolSettings
	// SlotsPerMachine is how many tasks a machine's worker runs at a time (0: 1).
	SlotsPerMachine int
	// StartTimeout is the time a worker has to attach (0: DefaultStartTimeout), and how long
	// the worker of a running machine may be silent.
	StartTimeout time.Duration
	// StopTimeout is the time a machine has to stop (0: 2 min).
	StopTimeout time.Duration
	// StartLatency is how long machines take to come, until that was measured (0: 5 s).
	StartLatency time.Duration
	// Patience is for how long waiting work may wait for the slots that are there
	// before more are made. It is never shorter than twice what machines take to
	// come: one is worth its start only if it then works for as long.
	Patience time.Duration
	// ActionsAtOnce bounds the provider's calls at a time (0: 8), CreationsAtOnce
	// those that make machines, between two looks (0: 3, what Fly takes at once).
	ActionsAtOnce, CreationsAtOnce int
	// Env returns what a machine's worker is told besides what the provider
	// tells all of them. May be nil.
	Env func(machineID string) map[string]string
}

// Store is what autoscaling needs of the store.
type Store interface {
	ReadPool(ctx context.Context) (pipeline.PoolView, error)
	ReserveMachine(ctx context.Context, m pipeline.Machine, limit int, term int64) (bool, error)
	MoveMachine(ctx context.Context, m pipeline.MachineMove) (pipeline.Machine, error)
	LoseMachine(ctx context.Context, id string, term int64) error
	DrainWorker(ctx context.Context, id string) (pipeline.Worker, error)
	ReportPool(ctx context.Context, r pipeline.PoolReport, term int64) error
	Wakes(ctx context.Context) (<-chan pipeline.Wake, error)
}

// Deps are what a Reconciler works with.
type Deps struct {
	Store    Store
	Provider machine.Provider
	// Term is of this replica's lead, 0 while it doesn't lead; Elected receives
	// when it has come to.
	Term    func() int64
	Elected <-chan struct{}
	// Now is the clock, NewID names machines. Nil: the real one, and ULIDs.
	Now   func() time.Time
	NewID func() string
	Log   *slog.Logger
}

// Reconciler reconciles while Run does, or whoever calls Step.
type Reconciler struct {
	cfg     Config
	deps    Deps
	metrics *metrics

	// Of the goroutine that steps alone.
	term        int64 // of the last step
	lost        int64 // a term that the store says is over
	resumed     bool  // what the leader before told is taken over
	seen        map[string]machine.Instance
	listAt      time.Time            // when to read the provider's list next
	listed      time.Time            // when it was read, or that was tried
	unlisted    time.Time            // it failed, and isn't tried again before
	silentSince map[string]time.Time // by machine
	asked       map[string]time.Time // when machines were created or started that haven't come yet
	latency     time.Duration        // until a machine comes, smoothed
	speed       float64              // weight that a slot does in a second, smoothed
	jobWeight   float64
	brakes      *brakes
	told        pipeline.PoolReport
	toldAt      time.Time
}

// New starts nothing; Run does.
func New(cfg Config, deps Deps) *Reconciler {
	orDefault(&cfg.SlotsPerMachine, 1)
	orDefault(&cfg.StartTimeout, DefaultStartTimeout)
	orDefault(&cfg.StopTimeout, defaultStopTimeout)
	orDefault(&cfg.StartLatency, defaultStartLatency)
	orDefault(&cfg.ActionsAtOnce, defaultActions)
	orDefault(&cfg.CreationsAtOnce, defaultCreations)
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.NewID == nil {
		deps.NewID = func() string { return ulid.Make().String() }
	}
	return &Reconciler{
		cfg: cfg, deps: deps, metrics: newMetrics(), brakes: newBrakes(),
		silentSince: map[string]time.Time{}, asked: map[string]time.Time{}, latency: cfg.StartLatency,
	}
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Run reconciles until ctx ends, and returns nil.
func (r *Reconciler) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	ready, changed := make(chan struct{}, 1), make(chan struct{}, 1)
	watching.Go(func() { r.watch(ctx, ready, changed) })

	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-ready:
		case <-changed:
			r.Retry()
		case <-r.deps.Elected:
		case <-r.deps.Provider.Changes():
			r.Look()
		}
		timer.Reset(r.Step(ctx))
	}
	return nil
}

// Look makes the next step read the provider's list.
func (r *Reconciler) Look() { r.listAt = time.Time{} }

// Retry makes the next step try what waits for an operator.
func (r *Reconciler) Retry() {
	r.brakes.release()
	r.Look()
}

// watch tells of tasks that became ready, and of settings that were changed.
func (r *Reconciler) watch(ctx context.Context, ready, changed chan<- struct{}) {
	for ctx.Err() == nil {
		wakes, err := r.deps.Store.Wakes(ctx)
		if err != nil {
			sleep(ctx, soonTick)
			continue
		}
		signal(ready) // for what came before anybody listened
		for wake := range wakes {
			switch wake {
			case pipeline.WakeReady:
				signal(ready)
			case pipeline.WakePool:
				signal(changed)
			case pipeline.WakeDue, pipeline.WakeWorker: // others'
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// signal sends to a channel of one, unless a signal waits there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Step looks once, does what is to be done, and returns when to step again if
// nothing happens before.
func (r *Reconciler) Step(ctx context.Context) time.Duration {
	term := r.deps.Term()
	if term != r.term {
		r.term = term
		r.follow()
	}
	switch term {
	case 0:
		return quietTick
	case r.lost:
		return soonTick // we are told when we lead again
	}
	s, view, err := r.look(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.deps.Log.WarnContext(ctx, "pool can't be read, trying again", "error", err)
		}
		return soonTick
	}
	actions := bounded(Decide(s), r.cfg.CreationsAtOnce)
	r.report(ctx, s, actions)
	if len(actions) == 0 {
		return r.pause(s)
	}
	r.apply(ctx, actions, s, view)
	return 0 // what was done may ask for more, and what failed is to be told; it rests for a while
}

// follow forgets what may have changed while another replica led.
func (r *Reconciler) follow() {
	r.Look()
	r.seen = nil
	r.brakes = newBrakes()
	r.resumed = false
	clear(r.silentSince)
	clear(r.asked)
}

// bounded leaves out the creations beyond a number: what has come by then may
// make them needless, and the provider takes so many at once.
func bounded(actions []Action, creations int) []Action {
	var some []Action
	for _, a := range actions {
		if a.Kind == Create {
			creations--
			if creations < 0 {
				continue
			}
		}
		some = append(some, a)
	}
	return some
}

// pause is how long nothing is to be done by itself.
func (r *Reconciler) pause(s Snapshot) time.Duration {
	now := r.deps.Now()
	if r.brakes.stopped(now) {
		return r.brakes.stop.Sub(now)
	}
	next := r.listAt
	if until := r.brakes.next(now); !until.IsZero() && until.Before(next) {
		next = until
	}
	for _, m := range s.Machines {
		if m.State == pipeline.MachineStarting {
			if late := now.Add(s.StartTimeout - m.InState + time.Second); late.Before(next) {
				next = late
			}
		}
	}
	return max(time.Millisecond, next.Sub(now))
}
