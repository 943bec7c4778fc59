package pool

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// safetyTick covers wake-ups that were lost though the connection to the
	// store wasn't: after one that was, everything is woken.
	safetyTick = 5 * time.Minute
	// lookAgain is the same for slots that become free while nothing is ready.
	lookAgain = 15 * time.Second
	// maxClaims is how many claims are in flight at most. There is one while
	// tasks are few, and more the longer claims come back full.
	maxClaims = 8
	// maxAssignmentBytes is far below what a worker reads: a larger one would end
	// its stream, and the task would come to it again. A long film's has less than
	// a tenth.
	maxAssignmentBytes = 2 << 20
)

// dispatcher gives ready tasks to free slots.
type dispatcher struct {
	svc   *Service
	kicks chan struct{} // a task may be ready
	frees chan struct{} // a slot may be free

	// Of run's goroutine alone.
	inFlight int
	hungry   bool      // tasks may be ready
	dryFrom  time.Time // since when they aren't
	kicked   int       // counts the wake-ups
	width    int       // claims that may be in flight
	turn     int       // counts the claims that were given tasks
}

// asked is what came of a worker's last claims. It is the dispatcher's alone.
type asked struct {
	served  int // the turn of the last that was given tasks
	refused int // the wake-up after which the store refused it
}

// claimed is what came of a claim.
type claimed struct {
	sess    *session
	given   bool // it got tasks
	more    bool // tasks are still ready
	refused bool // the store doesn't trust it
	kicked  int  // the wake-ups when it was asked
	err     error
}

func newDispatcher(svc *Service) *dispatcher {
	return &dispatcher{svc: svc, kicks: make(chan struct{}, 1), frees: make(chan struct{}, 1), width: 1}
}

// wake says that a task may be ready.
func (d *dispatcher) wake() { signal(d.kicks) }

// freed says that a slot may be free.
func (d *dispatcher) freed() { signal(d.frees) }

// run dispatches until ctx ends and no claim is in flight.
func (d *dispatcher) run(ctx context.Context) {
	var claims sync.WaitGroup
	defer claims.Wait()
	results := make(chan claimed, maxClaims)
	tick := time.NewTicker(safetyTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.kicks:
			d.noteWake()
		case <-d.frees:
			d.noteFree()
		case <-tick.C:
			d.noteWake()
			signal(d.svc.checks)
		case r := <-results:
			d.note(r)
		}
		for d.hungry && d.inFlight < d.width {
			sess, batch := d.next()
			if sess == nil {
				break
			}
			d.inFlight++
			sess.setClaiming(true)
			kicked := d.kicked
			claims.Go(func() {
				r := d.svc.claim(ctx, sess, batch)
				r.sess, r.kicked = sess, kicked
				sess.setClaiming(false)
				results <- r
			})
		}
	}
}

func (d *dispatcher) noteWake() {
	d.kicked++
	d.hungry = true
}

// noteFree fills a slot if tasks are ready. Where the last claim found none,
// a wake-up tells of the next one, and asking would be a call for nothing.
func (d *dispatcher) noteFree() {
	if !d.hungry && time.Since(d.dryFrom) >= lookAgain {
		d.noteWake()
	}
}

// note learns from a claim whether more tasks are ready. Where its answer says
// no, somebody may have woken us since it was asked.
func (d *dispatcher) note(r claimed) {
	d.inFlight--
	if r.given {
		d.turn++
		r.sess.asked.served = d.turn
	}
	switch {
	case r.err != nil: // the session ended; another one is asked
	case r.refused:
		r.sess.asked.refused = r.kicked
		signal(d.svc.checks)
	case r.more:
		d.width = min(2*d.width, maxClaims)
	default:
		d.width = 1
		if r.kicked == d.kicked {
			d.hungry, d.dryFrom = false, time.Now()
		}
	}
}

// next picks whom to claim for, and how many tasks. A machine that fails fast
// always has free slots: those that are doubted get what nobody else can take.
func (d *dispatcher) next() (*session, int) {
	var trusted, doubted []*session
	now := time.Now()
	for _, sess := range d.svc.current() {
		if sess.doubted(now) {
			doubted = append(doubted, sess)
		} else {
			trusted = append(trusted, sess)
		}
	}
	sess, batch, free := d.pick(trusted)
	if !free {
		sess, batch, _ = d.pick(doubted)
	}
	return sess, batch
}

// pick picks the worker with the most free slots, the one that was given tasks
// last among equals, so that those that aren't needed stay idle and leave, and
// how many tasks make it as full as the second. Nobody is picked while a claim
// for an emptier one is in flight. One that was refused isn't asked again
// before the next wake-up. free says whether anybody could be asked, now or
// after its claim.
func (d *dispatcher) pick(among []*session) (best *session, batch int, free bool) {
	most, second, busy := 0, 0, 0
	for _, sess := range among {
		free, now := sess.free()
		switch {
		case free == 0 || sess.asked.refused == d.kicked:
		case !now:
			busy = max(busy, free)
		case free > most || free == most && sess.asked.served > best.asked.served:
			best, most, second = sess, free, most
		default:
			second = max(second, free)
		}
	}
	if best == nil || busy > most {
		return nil, 0, busy > 0
	}
	return best, max(1, most-max(second, busy)), true
}

// current returns the sessions that are open.
func (s *Service) current() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions := make([]*session, 0, len(s.sessions))
	for _, sess := range s.sessions {
		sessions = append(sessions, sess)
	}
	return sessions
}

// claim leases up to most tasks for a worker and sends them to it. An error
// says that the session ended, or is about to.
func (s *Service) claim(ctx context.Context, sess *session, most int) claimed {
	started := time.Now()
	request := pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: sess.worker.ID, Session: sess.number, Max: most, Lease: s.cfg.Lease,
		RunningLimit: s.cfg.ProjectRunningLimit,
	}
	var got pipeline.Claimed
	// The claim outlives a stop of the server: a lease that was made has to
	// be given back.
	ctx = context.WithoutCancel(ctx)
	err := persist(ctx, sess, func(ctx context.Context) error {
		var err error
		got, err = s.deps.Store.ClaimTasks(ctx, request)
		return err
	})
	if err != nil {
		sess.log.WarnContext(ctx, "tasks can't be claimed", "error", err)
		sess.end(errForgotten)
		return claimed{err: err}
	}
	given := false
	for _, l := range got.Leases {
		given = s.assign(ctx, sess, newLease(l, s.cfg.Lease)) || given
	}
	if given {
		s.metrics.dispatch.Observe(time.Since(started).Seconds())
	}
	return claimed{given: given, more: got.More, refused: got.Refused}
}

// assign sends a task to its worker, or hands it back. It reports whether it was sent.
func (s *Service) assign(ctx context.Context, sess *session, l *lease) bool {
	ids := slog.Group("", "job_id", l.job.ID, "task_id", l.ref.TaskID, "attempt", l.ref.Attempt)
	if s.unable(ctx, sess, l) {
		sess.log.WarnContext(ctx, "worker has no encoder for its task", ids)
		return false
	}
	var m *tcoderv1.AttachResponse
	if err := pipeline.Contain(func() (err error) {
		m, err = s.assignment(ctx, l)
		if size := proto.Size(m); err == nil && size > maxAssignmentBytes {
			err = fmt.Errorf("its assignment has %d bytes, more than the %d that a worker is sent", size, maxAssignmentBytes)
		}
		return err
	}); err != nil {
		sess.log.ErrorContext(ctx, "task can't be assigned", ids, slog.Any("error", err))
		if transient(err) {
			s.handBack(ctx, sess, l)
			return false
		}
		s.settleUnsent(ctx, sess, l, func(ctx context.Context) error {
			// No worker can run it; failing it, with its backoff, keeps it from
			// going round.
			_, err := s.fail(ctx, sess, l.ref, pipeline.FaultUnknown,
				pipeline.Failure{Reason: pipeline.ReasonInternal, Message: "The task can't be assigned."})
			return err
		})
		return false
	}
	if !sess.offer(l, m) {
		sess.log.InfoContext(ctx, "worker left before its task came", ids)
		s.handBack(ctx, sess, l)
		return false
	}
	runtime.Gosched() // to who sends it: the worker needn't wait for what is written about it
	sess.log.InfoContext(ctx, "task assigned", ids, slog.String("kind", string(l.task.Kind)))
	s.metrics.assigned(l)
	return true
}

// handBack gives back a lease whose task wasn't sent, for any worker to take.
func (s *Service) handBack(ctx context.Context, sess *session, l *lease) {
	s.settleUnsent(ctx, sess, l, func(ctx context.Context) error {
		_, err := s.deps.Store.ReleaseTask(ctx, sess.worker.ID, l.ref)
		return err
	})
}

// settleUnsent gives back a lease whose task wasn't sent. If that fails, the
// lease runs out.
func (s *Service) settleUnsent(ctx context.Context, sess *session, l *lease, f func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := f(ctx); err != nil {
		sess.log.WarnContext(ctx, "lease can't be given back, it will run out", "task_id", l.ref.TaskID, "error", err)
	}
}
