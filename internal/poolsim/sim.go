package poolsim

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/tcoder-dev/tcoder/internal/memstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/autoscale"
)

// The defaults of a deployment.
const (
	heartbeat = 5 * time.Second
	lease     = 20 * time.Second
	leaderTTL = 18 * time.Second
	replica   = "sim"
	project   = "default"
	// keptJobs is how long the store keeps jobs that ended: it grows no further then.
	keptJobs = 10 * time.Minute
)

// Policy is what an operator chooses.
type Policy struct {
	Settings pipeline.PoolSettings
	Slots    int // of a machine (0: 1)
	// Patience, StartLatency and CreationsAtOnce are as in autoscale.Config.
	Patience        time.Duration
	StartLatency    time.Duration
	CreationsAtOnce int
}

// DefaultPolicy is that of a deployment on Fly, for a limit of 20 machines.
func DefaultPolicy() Policy {
	return Policy{Settings: pipeline.PoolSettings{Limit: 20, Idle: 30 * time.Second, KeepStopped: 20}, Slots: 1}
}

// Config says what is played.
type Config struct {
	Trace  Trace
	Policy Policy
	Cloud  Cloud
	Seed   uint64
	// Stopped machines are there in the beginning.
	Stopped int
	// After is for how long the pool is watched once all is done (0: an hour).
	After time.Duration
	Log   *slog.Logger // of the autoscaler; nil: none
}

// mostSteps bounds the steps at one instant: more mean that it never rests.
const mostSteps = 1000

// longest bounds a simulation that never ends.
const longest = 30 * 24 * time.Hour

// simulation is one run. Nothing in it happens at once: the goroutine of a
// step runs while the main one waits for it, and the other way round.
type simulation struct {
	cfg      Config
	now      time.Time
	start    time.Time
	store    *memstore.Store
	cloud    *provider
	scaler   *autoscale.Reconciler
	term     int64
	events   events
	sequence int
	wakes    <-chan pipeline.Wake
	made     int // ids

	jobs      map[string]*job
	open      int // jobs that aren't done, those to come included
	doneAt    time.Time
	workers   map[string]*worker // by machine
	order     []*worker          // by the names of their machines; nil: to be sorted again
	hungry    bool               // tasks may be ready
	turn      int                // counts claims
	sweepAt   time.Time
	tally     tally
	failure   error
	signals   chan signal // of the goroutine that steps
	resume    chan error
	stepping  bool
	stepAgain bool // it was woken while it stepped
	stepAt    time.Time
	steps     int // at this instant
}

// Run plays a trace.
func Run(ctx context.Context, cfg Config) (Outcome, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &simulation{
		cfg: cfg, start: time.Unix(1_800_000_000, 0).UTC(), jobs: map[string]*job{}, workers: map[string]*worker{},
		signals: make(chan signal), resume: make(chan error),
	}
	s.now = s.start
	s.cfg.Policy.Slots = cmp.Or(cfg.Policy.Slots, 1)
	s.cfg.After = cmp.Or(cfg.After, time.Hour)
	s.cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	clock := func() time.Time { return s.now }
	s.store = memstore.New(memstore.Config{Clock: clock, Jitter: func() float64 { return 0.5 }})
	s.cloud = newProvider(cfg.Cloud, cfg.Seed, stoppedIDs(cfg.Stopped), clock, s.pause)
	var err error
	if s.wakes, err = s.store.Wakes(ctx); err != nil {
		return Outcome{}, fmt.Errorf("listen to the store: %w", err)
	}
	s.scaler = autoscale.New(autoscale.Config{
		Settings: cfg.Policy.Settings, SlotsPerMachine: s.cfg.Policy.Slots, Patience: cfg.Policy.Patience,
		StartLatency: cfg.Policy.StartLatency, CreationsAtOnce: cfg.Policy.CreationsAtOnce, ActionsAtOnce: 1,
	}, autoscale.Deps{
		Store: s.store, Provider: s.cloud, Term: func() int64 { return s.term }, Now: clock, NewID: func() string { return s.newID("m") }, Log: s.cfg.Log,
	})
	s.sweep(ctx)
	if err := s.prepare(ctx); err != nil {
		return Outcome{}, err
	}
	for _, j := range cfg.Trace.Jobs {
		s.open++
		s.at(s.start.Add(j.At), func() { s.submit(ctx, s.newID("j"), j) })
	}
	s.doneAt = s.now
	s.step(ctx)
	err = s.loop(ctx)
	cancel()
	s.abandon()
	if err != nil {
		return Outcome{}, err
	}
	return s.outcome(ctx), nil
}

// newID names things so that their names sort by age.
func (s *simulation) newID(prefix string) string {
	s.made++
	return prefix + strconv.Itoa(1_000_000+s.made)
}

// prepare writes down the machines that are there and have stopped.
func (s *simulation) prepare(ctx context.Context) error {
	for _, id := range stoppedIDs(s.cfg.Stopped) {
		if _, err := s.store.ReserveMachine(ctx, pipeline.Machine{ID: id, Provider: s.cloud.Name()}, s.cfg.Policy.Settings.Limit, 0); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		for _, by := range []pipeline.MachineTransition{pipeline.MachineCreated, pipeline.MachineAttach, pipeline.MachineExit} {
			if _, err := s.store.MoveMachine(ctx, pipeline.MachineMove{ID: id, By: by, ProviderID: id}); err != nil {
				return fmt.Errorf("prepare: %w", err)
			}
		}
	}
	return nil
}

func stoppedIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = "kept" + strconv.Itoa(1000+i)
	}
	return ids
}

// loop lets time pass until all is done and the pool was watched for a while.
func (s *simulation) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		s.settle(ctx)
		if s.failure != nil {
			return s.failure
		}
		next := s.events.next()
		if at, changes := s.cloud.Next(); changes && (next.IsZero() || at.Before(next)) {
			next = at
		}
		end := s.doneAt.Add(s.cfg.After)
		if s.open == 0 && !s.stepping && next.After(end) {
			s.now = end
			return nil
		}
		if next.IsZero() || next.Sub(s.start) > longest {
			return fmt.Errorf("%d jobs are still open, and nothing comes any more", s.open)
		}
		if next.After(s.now) {
			s.now, s.steps = next, 0
		}
		for s.failure == nil && s.events.due(s.now) {
			heap.Pop(&s.events).(*event).run() //nolint:forcetypeassert // it holds nothing else
		}
	}
	return context.Cause(ctx)
}

// settle does what this instant leads to.
func (s *simulation) settle(ctx context.Context) {
	for s.failure == nil {
		s.sync(ctx)
		s.dispatch(ctx)
		if !s.listen(ctx) {
			break
		}
	}
	s.note(ctx)
}

// listen follows the store's wake-ups, and reports whether there were any.
func (s *simulation) listen(ctx context.Context) bool {
	woken := false
	for {
		select {
		case wake := <-s.wakes:
			woken = true
			switch wake {
			case pipeline.WakeReady:
				s.hungry = true
				s.step(ctx)
			case pipeline.WakeDue:
				s.sweepSoon(ctx)
			case pipeline.WakeWorker:
				s.look(ctx)
			case pipeline.WakePool: // nobody changes them
			}
		default:
			return woken
		}
	}
}

// fail ends the simulation.
func (s *simulation) fail(doing string, err error) {
	if err != nil && s.failure == nil {
		s.failure = fmt.Errorf("%s at %s: %w", doing, s.now.Sub(s.start), err)
	}
}

// signal is what the goroutine that steps tells: it waits, or it is done.
type signal struct {
	wait  time.Duration
	done  bool
	pause time.Duration // until the next step
}

// step lets the autoscaler step, unless it is in the middle of one.
func (s *simulation) step(ctx context.Context) {
	if s.stepping {
		s.stepAgain = true
		return
	}
	if s.steps++; s.steps > mostSteps {
		s.fail("step", errors.New("the autoscaler doesn't come to rest"))
		return
	}
	s.stepping, s.stepAgain = true, false
	go func() { s.signals <- signal{done: true, pause: s.scaler.Step(ctx)} }()
	s.follow(ctx)
}

// follow waits until the step waits for time to pass, or is done.
func (s *simulation) follow(ctx context.Context) {
	got := <-s.signals
	if !got.done {
		s.at(s.now.Add(got.wait), func() {
			s.resume <- ctx.Err()
			s.follow(ctx)
		})
		return
	}
	s.stepping = false
	if s.stepAgain {
		got.pause = 0
	}
	at := s.now.Add(max(0, got.pause))
	s.stepAt = at
	s.at(at, func() {
		if s.stepAt.Equal(at) && !s.stepping {
			s.step(ctx)
		}
	})
}

// pause is called by the step's goroutine: fake time passes.
func (s *simulation) pause(_ context.Context, d time.Duration) error {
	s.signals <- signal{wait: d}
	return <-s.resume
}

// abandon ends a step that waits for time to pass.
func (s *simulation) abandon() {
	for s.stepping {
		s.resume <- context.Canceled
		s.stepping = !(<-s.signals).done
	}
}

// sweep is the sweeper's tick.
func (s *simulation) sweep(ctx context.Context) {
	swept, err := s.store.Sweep(ctx, pipeline.SweepRequest{
		Replica: replica, LeaderTTL: leaderTTL, Lease: lease, Retry: pipeline.DefaultRetryPolicy(), Retention: keptJobs,
		Attached: s.attached(), Term: s.term,
	})
	if err != nil {
		s.fail("sweep", err)
		return
	}
	s.term = swept.Term
	for _, d := range swept.Duties {
		if d.Kind == pipeline.DutyPublish {
			continue // whoever ended the last task did
		}
		s.fail("end duty", s.store.EndDuty(ctx, d))
	}
	s.sweepBy(ctx, s.now.Add(max(5*time.Millisecond, swept.NextDue)))
}

func (s *simulation) sweepBy(ctx context.Context, at time.Time) {
	s.sweepAt = at
	s.at(at, func() {
		if s.sweepAt.Equal(at) {
			s.sweep(ctx)
		}
	})
}

// sweepSoon is for a deadline that is earlier than the next tick.
func (s *simulation) sweepSoon(ctx context.Context) { s.sweepBy(ctx, s.now.Add(5*time.Millisecond)) }

// at plans an event.
func (s *simulation) at(at time.Time, run func()) {
	s.sequence++
	heap.Push(&s.events, &event{at: at, sequence: s.sequence, run: run})
}

// event is something that happens at an instant, in the order of its planning.
type event struct {
	at       time.Time
	sequence int
	run      func()
}

type events []*event

// Len implements [heap.Interface], as the others do.
func (e *events) Len() int { return len(*e) }

// Less says which event comes first.
func (e *events) Less(i, j int) bool {
	a, b := (*e)[i], (*e)[j]
	return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.sequence, b.sequence)) < 0
}

// Swap swaps two events.
func (e *events) Swap(i, j int) { (*e)[i], (*e)[j] = (*e)[j], (*e)[i] }

// Push adds an event.
func (e *events) Push(x any) { *e = append(*e, x.(*event)) } //nolint:forcetypeassert // it is given nothing else

// Pop removes the last.
func (e *events) Pop() any {
	last := len(*e) - 1
	popped := (*e)[last]
	*e = (*e)[:last]
	return popped
}

// next is when the first happens; zero if there is none.
func (e *events) next() time.Time {
	if len(*e) == 0 {
		return time.Time{}
	}
	return (*e)[0].at
}

func (e *events) due(now time.Time) bool { return len(*e) > 0 && !(*e)[0].at.After(now) }
