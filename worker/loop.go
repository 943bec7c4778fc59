package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// The pace of the protocol, where the control plane doesn't set it.
const (
	welcomeTimeout   = 10 * time.Second
	defaultHeartbeat = 5 * time.Second
	defaultLease     = 20 * time.Second
	progressInterval = 250 * time.Millisecond // at most four a second
	ackWait          = 2 * time.Second        // for the last reports of a drain, of a control plane that is there
	hangUpWait       = time.Second            // for the last messages to leave
	resendHeartbeats = 3                      // a report that got no answer for so many is sent again
)

// loop owns all that the worker holds. One goroutine runs it, no call in it
// blocks, and every wait is one of its deadlines.
type loop struct {
	cfg     Config
	hello   *tcoderv1.Hello // what never changes of it
	execute Executor
	connect func(context.Context) *session
	route   *route
	log     *slog.Logger

	drain      <-chan struct{}
	ended      chan endedTask
	asked      chan *signCall
	progressed chan struct{} // holds one token when a task has new progress
	grew       chan struct{} // holds one token when a task has segments to report
	closing    chan struct{} // closed when nobody listens to ended any more
	running    sync.WaitGroup
	slots      chan struct{}

	tasks    taskTable
	signs    map[uint64]*signCall
	lastSign uint64

	session       *session // nil while detached
	refused       int      // sessions in a row that ended because a message is refused
	heartbeat     time.Duration
	silence       time.Duration // after which a stream without a message is dead
	idleThreshold time.Duration // 0: for ever
	lastBeat      time.Time
	idleFrom      time.Time // when it last had a task, or asked to leave
	draining      bool
	left          bool // it may go

	// What is due when; zero is never.
	attachAt, beatAt, progressAt time.Time
	// Of a drain: when to hand back what still runs, when to go though a report
	// has no answer, and when at the latest.
	handBackAt, exitBy, lastExit time.Time
}

// endedTask is a task whose goroutine has done its work.
type endedTask struct {
	task   *heldTask
	report *tcoderv1.TaskReport
}

func newLoop(cfg Config, hello *tcoderv1.Hello, execute Executor, drain <-chan struct{}) *loop {
	route := newRoute(cfg.Servers, cfg.Transport, cfg.WorkerID)

	return &loop{
		cfg: cfg, hello: hello, execute: execute, drain: drain, route: route,
		connect: func(ctx context.Context) *session {
			client := newControlClient(cfg, route.server(), route.calling)

			return attach(ctx, client, route.server(), cfg.Token, route.calling)
		},
		log:        cfg.Logger,
		ended:      make(chan endedTask),
		asked:      make(chan *signCall),
		progressed: make(chan struct{}, 1),
		grew:       make(chan struct{}, 1),
		closing:    make(chan struct{}),
		slots:      make(chan struct{}, cfg.Slots),
		tasks:      taskTable{},
		signs:      map[uint64]*signCall{},
		heartbeat:  defaultHeartbeat,
		silence:    silenceOf(defaultLease),
	}
}

// run returns nil when the worker may go, and otherwise the cause of ctx or why
// the control plane will never have it. All goroutines have ended by then.
func (l *loop) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer l.shutdown(cancel)

	l.attachAt = time.Now()
	l.idleFrom = l.attachAt

	timer := time.NewTimer(0)
	defer timer.Stop()

	drain := l.drain

	for {
		var (
			in     <-chan *tcoderv1.AttachResponse
			done   <-chan struct{}
			hellos chan<- *tcoderv1.Hello
			hello  *tcoderv1.Hello
		)

		if l.session != nil {
			in, done = l.session.in, l.session.done

			if l.session.calls || !l.session.greeted {
				hellos, hello = l.session.hellos, l.greeting()
			}
		}

		timer.Reset(time.Until(l.nextDeadline()))

		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-drain:
			drain = nil
			l.startDrain("the worker is told to stop")
		case hellos <- hello:
			l.session.greeted = true
		case message := <-in:
			l.receive(ctx, message)
		case <-done:
			if err := l.detached(); err != nil {
				return err
			}
		case end := <-l.ended:
			l.taskEnded(end)
		case call := <-l.asked:
			l.askToSign(call)
		case <-l.progressed:
			if l.progressAt.IsZero() {
				l.progressAt = l.lastBeat.Add(progressInterval)
			}
		case <-l.grew: // tick reports them
		case <-timer.C:
		}

		l.tick(ctx, time.Now())

		if l.left {
			l.hangUp()

			return nil
		}
	}
}

// tick does what is due.
func (l *loop) tick(ctx context.Context, now time.Time) {
	if len(l.tasks) > 0 {
		l.idleFrom = now
	}

	if l.session == nil && due(l.attachAt, now) {
		l.attach(ctx, now)
	}

	if l.session != nil && due(l.session.silentBy, now) {
		l.session.silentBy = time.Time{}
		l.session.cancel(errNoAnswer)
	}

	if l.attached() && due(l.route.tryStreamAt(), now) {
		l.session.cancel(errTryStream)
	}

	if due(l.handBackAt, now) {
		l.handBackAt = time.Time{}

		for _, task := range l.tasks.inOrder() {
			l.handBack(task)
		}
	}

	if l.attached() {
		if due(l.beatAt, now) || due(l.progressAt, now) {
			l.beat(now)
		}

		for _, task := range l.tasks {
			l.tell(task, now)
		}

		if due(l.leaveAt(), now) {
			l.idleFrom = now // if it may not, it asks again later
			l.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Leave{Leave: &tcoderv1.LeaveRequest{}}})
		}
	}

	if l.draining && (len(l.tasks) == 0 || due(l.exitBy, now)) {
		if len(l.tasks) > 0 {
			l.log.Warn("leaving with reports that nobody acknowledged", "tasks", len(l.tasks))
		}

		l.left = true
	}
}

// tell says what is due of a task: how it ended, or what it has uploaded.
func (l *loop) tell(task *heldTask, now time.Time) {
	switch {
	case task.report != nil && due(task.resendAt, now):
		l.sendReport(task)
	case task.report == nil && due(task.segments.dueAt(), now):
		l.reportSegments(task, now)
	}
}

// nextDeadline is when tick has something to do.
func (l *loop) nextDeadline() time.Time {
	deadlines := []time.Time{l.handBackAt, l.exitBy}

	switch {
	case l.session == nil:
		deadlines = append(deadlines, l.attachAt)
	case !l.session.welcomed:
		deadlines = append(deadlines, l.session.silentBy)
	default:
		deadlines = append(deadlines, l.session.silentBy, l.beatAt, l.progressAt, l.leaveAt(), l.route.tryStreamAt())

		for _, task := range l.tasks {
			deadlines = append(deadlines, task.resendAt)

			if task.report == nil {
				deadlines = append(deadlines, task.segments.dueAt())
			}
		}
	}

	next := time.Now().Add(time.Hour) // nothing to do; waking up does no harm

	for _, deadline := range deadlines {
		if !deadline.IsZero() && deadline.Before(next) {
			next = deadline
		}
	}

	return next
}

// leaveAt is when the worker has been idle for long enough.
func (l *loop) leaveAt() time.Time {
	if l.idleThreshold <= 0 || len(l.tasks) > 0 || l.draining {
		return time.Time{}
	}

	return l.idleFrom.Add(l.idleThreshold)
}

// silenceOf is how long to wait for a word of the control plane: a heartbeat
// that got no answer may have renewed nothing, and another replica has to
// before the lease is over.
func silenceOf(lease time.Duration) time.Duration { return lease * 3 / 4 }

func due(deadline, now time.Time) bool {
	return !deadline.IsZero() && !now.Before(deadline)
}

// attached tells whether the control plane listens.
func (l *loop) attached() bool { return l.session != nil && l.session.welcomed }

// send puts a message on the stream, if the control plane listens. What gets
// lost with a stream is sent again on the next one.
func (l *loop) send(message *tcoderv1.AttachRequest) {
	if l.attached() {
		l.session.out.put(message)
	}
}

// attach begins a session.
func (l *loop) attach(ctx context.Context, now time.Time) {
	l.session = l.connect(ctx)
	l.session.silentBy = now.Add(welcomeTimeout)
}

// greeting says who this is and what it holds now.
func (l *loop) greeting() *tcoderv1.Hello {
	hello := &tcoderv1.Hello{
		WorkerId:  l.hello.GetWorkerId(),
		MachineId: l.hello.GetMachineId(),
		Version:   l.hello.GetVersion(),
		Slots:     l.hello.GetSlots(),
		Encoders:  l.hello.GetEncoders(),
		Cpus:      l.hello.GetCpus(),
		Draining:  l.draining,
	}
	for _, task := range l.tasks.inOrder() {
		hello.Held = append(hello.Held, task.lease)
	}

	return hello
}

// detached plans the next attempt to attach. An error means that there is no
// point in one.
func (l *loop) detached() error {
	s := l.session
	l.session = nil

	if incompatible(s.err) && len(l.tasks) == 0 {
		return s.err
	}

	l.judge(s.err)

	server, now := l.route.server(), time.Now()
	end := outcome{err: s.err, calls: s.calls, welcomed: s.welcomed, lived: now.Sub(s.began)}
	l.route.forgive(end)

	first := l.route.failed == 0
	pause := l.route.after(end, now)
	l.attachAt = now.Add(pause)

	if l.draining {
		l.exitBy = l.lastExit
	}

	tell := l.log.Debug
	if first { // the ones after it say the same
		tell = l.log.Warn
	}

	tell("not attached to the control plane", "error", s.err, "server", server, "retry_in", pause,
		"next", l.route.server(), "calls", l.route.calling, "tasks", len(l.tasks))

	return nil
}

// beat renews every lease, and tells progress.
func (l *loop) beat(now time.Time) {
	message := &tcoderv1.Heartbeat{}

	for _, task := range l.tasks.inOrder() {
		progress := task.progress.Load()
		if progress == nil || task.report != nil { // its end tells more, and it may have been refused for its progress
			progress = &tcoderv1.TaskProgress{Lease: task.lease}
		}

		message.Running = append(message.Running, progress)
	}

	l.session.out.putHeartbeat(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: message}})
	l.lastBeat = now
	l.beatAt = now.Add(l.heartbeat)
	l.progressAt = time.Time{}
}

// hangUp lets the last messages leave, and closes the stream.
func (l *loop) hangUp() {
	if l.session == nil {
		return
	}

	l.session.out.close()

	timer := time.NewTimer(hangUpWait)
	defer timer.Stop()

	for {
		select {
		case <-l.session.in:
		case <-l.session.done:
			return
		case <-timer.C:
			return // shutdown cuts it
		}
	}
}

// shutdown stops whatever is left, and returns when it has ended.
func (l *loop) shutdown(cancel context.CancelCauseFunc) {
	cancel(errStopped)
	close(l.closing)
	l.running.Wait()

	if l.session != nil {
		<-l.session.done
	}
}

// resendSigns asks again for all that was asked for on streams that are gone.
func (l *loop) resendSigns() {
	for _, id := range slices.Sorted(maps.Keys(l.signs)) {
		l.sendSign(id)
	}
}

func (l *loop) sendSign(id uint64) {
	l.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Sign{Sign: l.signs[id].request(id)}})
}

// stoppedByUs tells whether err is one of the loop's own reasons to end a task.
func stoppedByUs(err error) bool {
	return errors.Is(err, errStopped) || errors.Is(err, errHandedBack) || errors.Is(err, context.Canceled)
}
