// Package autoscale keeps the pool's machines at what the waiting tasks ask
// for: it creates and starts machines while tasks wait for a slot, up to a
// limit that holds whatever races, and clears away those that have stopped,
// broke, or aren't known. Idle workers leave by themselves, by agreement with
// the control plane; a machine whose worker left has stopped.
//
// [Decide] is pure; the [Reconciler] reads a snapshot, decides, and applies.
// Only the leading replica acts. A machine is reserved in the store before it
// is asked for, and a creation that was cut off is taken up again under the
// same id, so none is leaked and none is made twice. What a dead machine held
// is given back at once, without a charge: nobody waits for its leases.
package autoscale

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// settle lets the dispatcher give a ready task to a worker that is there
	// before another machine is made for it.
	settle = 100 * time.Millisecond
	// maxRounds bounds how often one look is followed by the next at once.
	maxRounds           = 8
	busyTick            = 15 * time.Second
	quietTick           = 5 * time.Minute
	retryPause          = 2 * time.Second
	readTimeout         = 10 * time.Second
	actionTimeout       = 2 * time.Minute
	firstBackoff        = time.Second
	maxBackoff          = time.Minute
	steadyAfter         = 30 * time.Second
	actionsAtOnce       = 8
	defaultStartTimeout = 2 * time.Minute
	defaultStopTimeout  = 2 * time.Minute
)

// Config bounds the pool.
type Config struct {
	// Limit is the most machines there may be, the ones being created included.
	Limit int
	// SlotsPerMachine is how many tasks a machine's worker runs at a time (0: 1).
	SlotsPerMachine int
	// KeepStopped is how many stopped machines are kept for reuse.
	KeepStopped int
	// StartTimeout is the time a worker has to attach (0: 2 min), and how long
	// the worker of a running machine may be silent.
	StartTimeout time.Duration
	// StopTimeout is the time a machine has to stop (0: 2 min).
	StopTimeout time.Duration
	// Region is where machines are made; empty leaves it to the provider.
	Region string
	// Env returns what a machine's worker is told besides what the provider
	// tells all of them. May be nil.
	Env func(machineID string) map[string]string
}

// Store is what autoscaling needs of the store.
type Store interface {
	PoolStats(ctx context.Context) (pipeline.PoolStats, error)
	ListWorkers(ctx context.Context) ([]pipeline.Worker, error)
	ListMachines(ctx context.Context) ([]pipeline.Machine, error)
	ReserveMachine(ctx context.Context, m pipeline.Machine, limit int) (bool, error)
	MoveMachine(ctx context.Context, id string, by pipeline.MachineTransition, providerID string,
		f *pipeline.Failure) (pipeline.Machine, error)
	LoseMachine(ctx context.Context, id string) error
	Wakes(ctx context.Context) (<-chan pipeline.Wake, error)
}

// Deps are what a Reconciler works with.
type Deps struct {
	Store    Store
	Provider machine.Provider
	// Leader reports whether this replica may act, Elected receives when it
	// has come to.
	Leader  func() bool
	Elected <-chan struct{}
	Log     *slog.Logger
}

// Reconciler reconciles while Run does.
type Reconciler struct {
	cfg  Config
	deps Deps

	// Of Run's goroutine alone.
	silentSince map[string]time.Time // by machine
	failures    int                  // in a row
	holdUntil   time.Time
	attached    bool // workers, at the last look

	holdReason atomic.Value // string
	failedNow  atomic.Bool  // a machine failed in the round that is applied
}

// New starts nothing; Run does.
func New(cfg Config, deps Deps) *Reconciler {
	cfg.SlotsPerMachine = max(1, cfg.SlotsPerMachine)
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = defaultStartTimeout
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = defaultStopTimeout
	}
	r := &Reconciler{cfg: cfg, deps: deps, silentSince: map[string]time.Time{}}
	r.holdReason.Store("")
	return r
}

// HoldReason says why there are fewer machines than the work asks for, as a
// sentence; empty if there aren't, or if another replica leads.
func (r *Reconciler) HoldReason() string {
	reason, _ := r.holdReason.Load().(string)
	return reason
}

// Run reconciles until ctx ends, and returns nil.
func (r *Reconciler) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	ready := make(chan struct{}, 1)
	watching.Go(func() { r.watch(ctx, ready) })

	for ctx.Err() == nil {
		pause := quietTick
		if r.deps.Leader() {
			pause = r.converge(ctx)
		} else {
			r.holdReason.Store("")
		}
		r.wait(ctx, ready, pause)
	}
	return nil
}

// wait sleeps until there is something to look at.
func (r *Reconciler) wait(ctx context.Context, ready <-chan struct{}, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-r.deps.Elected:
	case <-r.deps.Provider.Changes():
	case <-ready:
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

// watch tells of tasks that became ready.
func (r *Reconciler) watch(ctx context.Context, ready chan<- struct{}) {
	for ctx.Err() == nil {
		wakes, err := r.deps.Store.Wakes(ctx)
		if err != nil {
			sleep(ctx, retryPause)
			continue
		}
		signal(ready) // for what came before anybody listened
		for wake := range wakes {
			if wake == pipeline.WakeReady {
				signal(ready)
			}
		}
	}
}

// signal sends to a channel of one, unless a signal waits there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// converge looks and acts until there is nothing to do, and returns when to
// look again.
func (r *Reconciler) converge(ctx context.Context) time.Duration {
	failed, settled := false, false
	for range maxRounds {
		snapshot, err := r.look(ctx)
		if err != nil {
			if ctx.Err() == nil {
				r.deps.Log.WarnContext(ctx, "pool can't be read, trying again", "error", err)
			}
			return retryPause
		}
		actions := Decide(snapshot)
		if r.attached && !settled && growth(actions) > 0 {
			settled = true
			sleep(ctx, settle)
			continue
		}
		r.explain(snapshot, actions)
		if len(actions) == 0 {
			return r.pause(snapshot)
		}
		if err := r.apply(ctx, actions); err != nil {
			if failed {
				return max(retryPause, time.Until(r.holdUntil))
			}
			failed = true // one more look clears away what failed, and says why
		}
	}
	return settle // something keeps changing
}

// pause is how long nothing is to be done about a pool by itself.
func (r *Reconciler) pause(s Snapshot) time.Duration {
	switch {
	case s.Hold:
		return max(settle, time.Until(r.holdUntil))
	case len(s.Machines) > 0:
		return busyTick
	default:
		return quietTick
	}
}

// explain notes why the pool doesn't grow though tasks wait.
func (r *Reconciler) explain(s Snapshot, actions []Action) {
	reason := ""
	switch {
	case demand(s, comingOf(s)) <= growth(actions):
	case s.Hold:
		reason = "Machines can't be created at the moment; the control plane's log says why."
	default:
		reason = "The pool is at its limit of machines."
	}
	r.holdReason.Store(reason)
}

// growth counts the machines that actions add.
func growth(actions []Action) int {
	n := 0
	for _, a := range actions {
		if a.Kind == Start || a.Kind == Create && a.MachineID == "" {
			n++
		}
	}
	return n
}

func comingOf(s Snapshot) int {
	coming := 0
	for _, m := range s.Machines {
		if _, boots := upkeep(s, m); boots {
			coming++
		}
	}
	return coming
}
