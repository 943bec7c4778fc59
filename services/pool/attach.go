package pool

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const (
	helloTimeout  = 10 * time.Second
	writeTimeout  = 10 * time.Second
	detachTimeout = 5 * time.Second
)

// Why a worker isn't let in.
var (
	errOtherMachine = &pipeline.Error{Reason: pipeline.ReasonPermissionDenied, Message: "The credential is of another machine, or of none."}
	errRevoked      = &pipeline.Error{Reason: pipeline.ReasonUnauthenticated, Message: "The pool has no such machine any more."}
)

// Why a session ends. All but the first tell the worker to attach again.
var (
	errIncompatible = &pipeline.Error{
		Reason: pipeline.ReasonWorkerIncompatible, Message: "The worker's messages are not understood.",
		Remedy: "Run the same version of the worker and the control plane.",
	}
	errDraining   = &pipeline.Error{Reason: pipeline.ReasonServerDraining, Message: "The control plane is stopping.", Remedy: "Attach again."}
	errSlowWorker = &pipeline.Error{Reason: pipeline.ReasonServerDraining, Message: "The worker doesn't read its stream.", Remedy: "Attach again."}
	errSilent     = &pipeline.Error{Reason: pipeline.ReasonServerDraining, Message: "The worker said nothing for too long.", Remedy: "Attach again."}
	errReplaced   = &pipeline.Error{Reason: pipeline.ReasonServerDraining, Message: "The worker attached again.", Remedy: "Attach again."}
	errForgotten  = &pipeline.Error{Reason: pipeline.ReasonServerDraining, Message: "The worker's state is out of date.", Remedy: "Attach again."}
)

type stream = connect.BidiStream[tcoderv1.AttachRequest, tcoderv1.AttachResponse]

// Attach serves the stream of a worker until it ends.
func (s *Service) Attach(ctx context.Context, stream *stream) error {
	control, ok := ctx.Value(controlKey{}).(*http.ResponseController)
	if !ok {
		return errors.New("pool: the handler is not the one of Service.Handler")
	}
	if !s.begin() {
		return errDraining
	}
	defer s.work.Done()

	reading := newGuard(control.SetReadDeadline)
	defer reading.stop()
	reading.start(helloTimeout)
	var sess *session
	if err := aside(func() error {
		first, err := stream.Receive()
		if err != nil && !errors.Is(err, io.EOF) {
			return unread(err)
		}
		if first.GetHello() == nil {
			return errIncompatible
		}
		sess, err = s.open(ctx, first.GetHello(), nil)
		return err
	}); err != nil {
		return err
	}
	err := s.serve(ctx, sess, stream, control, reading)
	s.close(ctx, sess, err)
	return err
}

// open attaches a worker in the store, welcomes it, and lets it have tasks.
func (s *Service) open(ctx context.Context, hello *tcoderv1.Hello, calls *calls) (*session, error) {
	w := mapper.WorkerFromProto(hello)
	if err := s.identify(ctx, w.MachineID); err != nil {
		return nil, err
	}
	number, kept, err := s.deps.Store.AttachWorker(ctx, w, s.cfg.Lease)
	if err != nil {
		return nil, err
	}
	sess := newSession(w, number, s.deps.Log)
	sess.calls = calls
	welcome, err := s.welcome(ctx, sess, kept)
	if err != nil {
		s.detach(ctx, sess, false)
		return nil, err
	}
	sess.send(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Welcome{Welcome: welcome}})

	s.mu.Lock()
	other := s.sessions[w.ID]
	if other == nil || other.number < number {
		s.sessions[w.ID] = sess
	} else {
		other = sess // a later attach has come first
	}
	s.mu.Unlock()
	if other != nil {
		other.end(errReplaced)
	}
	s.roster.forget()
	sess.log.InfoContext(ctx, "worker attached", "machine_id", w.MachineID, "slots", w.Slots,
		"kept", len(welcome.GetKept()), "lost", len(welcome.GetLost()), "version", w.Version)
	signal(s.checks) // it may have been told to drain while it was away
	s.dispatch.wake()
	return sess, nil
}

// identify refuses a worker that says it runs on another machine than its
// credential is of, or on one that the pool hasn't any more.
func (s *Service) identify(ctx context.Context, machineID string) error {
	id, bound := interceptor.Machine(ctx)
	switch {
	case !bound:
		return nil
	case id != machineID:
		return errOtherMachine
	case id == "":
		return nil
	}
	m, err := s.deps.Store.GetMachine(ctx, id)
	if pipeline.ReasonOf(err) == pipeline.ReasonMachineNotFound && err != nil || err == nil && m.State == pipeline.MachineFailed {
		return errRevoked
	}
	return err
}

// welcome tells a worker what it should be doing, and remembers it.
func (s *Service) welcome(ctx context.Context, sess *session, kept []pipeline.Lease) (*tcoderv1.Welcome, error) {
	w := sess.worker
	welcome := &tcoderv1.Welcome{
		HeartbeatInterval: durationpb.New(s.cfg.Heartbeat),
		Lease:             durationpb.New(s.cfg.Lease),
	}
	if idle := s.settings.Load().Idle; idle > 0 && w.MachineID != "" {
		welcome.IdleThreshold = durationpb.New(idle)
		sess.toldIdle(idle)
	}
	for _, k := range kept {
		l := newLease(k, s.cfg.Lease)
		source, err := s.signSource(ctx, l)
		if err != nil {
			return nil, err
		}
		sess.leases[l.ref] = l
		welcome.Kept = append(welcome.Kept, &tcoderv1.LeaseRenewal{Lease: mapper.LeaseRefToProto(l.ref), Source: source})
	}
	for _, ref := range w.Held {
		if sess.leases[ref] == nil {
			welcome.Lost = append(welcome.Lost, mapper.LeaseRefToProto(ref))
		}
	}
	if sess.calls == nil { // a session of calls may end with the call that says how far its tasks are
		sess.lastRenewal = time.Now()
	}
	return welcome, nil
}

// close ends what open began.
func (s *Service) close(ctx context.Context, sess *session, cause error) {
	sess.end(cause)
	s.mu.Lock()
	if s.sessions[sess.worker.ID] == sess {
		delete(s.sessions, sess.worker.ID)
	}
	s.mu.Unlock()
	gone := sess.gone()
	s.detach(ctx, sess, gone)
	s.roster.forget()
	sess.log.InfoContext(ctx, "worker detached", "gone", gone, "held", len(sess.held()), "cause", cause)
}

func (s *Service) detach(ctx context.Context, sess *session, gone bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
	defer cancel()
	if err := s.deps.Store.DetachWorker(ctx, sess.worker.ID, sess.number, gone); err != nil {
		sess.log.WarnContext(ctx, "worker can't be detached", "error", err)
	}
}

// serve passes messages in both directions until one side ends the stream.
// It returns when its reader has.
func (s *Service) serve(ctx context.Context, sess *session, stream *stream, control *http.ResponseController, reading *guard) error {
	readCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	read := make(chan error, 1)
	go func() { read <- s.read(readCtx, sess, stream, reading) }()

	readerEnded, err := s.write(ctx, sess, stream, control, read)
	sess.end(err)
	cancel()
	// The end of the stream is a message too, and a deaf worker's buffers are full.
	if deadlineErr := control.SetWriteDeadline(time.Now().Add(writeTimeout)); deadlineErr != nil {
		sess.log.ErrorContext(ctx, "end of the stream can't be bounded", "error", deadlineErr)
	}
	if !readerEnded {
		// A deadline that has passed wakes the reader, and nothing else does.
		if deadlineErr := control.SetReadDeadline(time.Unix(1, 0)); deadlineErr != nil {
			sess.log.ErrorContext(ctx, "stream can't be given up", "error", deadlineErr)
		}
		sess.log.DebugContext(ctx, "stream given up", "error", <-read)
	}
	return err
}

// write sends what is queued until the session ends, and says whether the
// reader ended it.
func (s *Service) write(ctx context.Context, sess *session, stream *stream, control *http.ResponseController,
	read <-chan error,
) (readerEnded bool, err error) {
	writing := newGuard(control.SetWriteDeadline)
	defer writing.stop()
	for {
		select {
		case m := <-sess.out:
			writing.start(writeTimeout)
			err := aside(func() error { return stream.Send(m) })
			writing.stop()
			if err != nil {
				return false, err
			}
		case err := <-read:
			return true, err
		case <-sess.ended:
			return false, sess.cause
		case <-s.draining:
			return false, errDraining
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// aside runs f on a stack of its own and waits for its end. The goroutine of a
// stream has a deep stack of handlers below it, and what that grows to once it
// keeps while it waits: 8 KB more for each attached worker.
func aside(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- pipeline.Contain(f) }()
	return <-done
}

// read handles what the worker says until it ends the stream (nil) or the
// stream breaks.
func (s *Service) read(ctx context.Context, sess *session, stream *stream, reading *guard) error {
	for {
		reading.start(s.cfg.Lease) // a worker that is silent for a lease has lost it
		m, err := stream.Receive()
		reading.stop() // it would go off while we are busy
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return unread(err)
		}
		// Not around the loop: what waits keeps its stack small.
		if err := pipeline.Contain(func() error { return s.handle(ctx, sess, m) }); err != nil {
			return err
		}
	}
}

// unread is why a message of a worker couldn't be read: a deadline that has
// passed is its guard's.
func unread(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSilent
	}
	return err
}

// handle does what one message of a worker asks for.
func (s *Service) handle(ctx context.Context, sess *session, m *tcoderv1.AttachRequest) error {
	switch m := m.GetMessage().(type) {
	case *tcoderv1.AttachRequest_Heartbeat:
		s.heartbeat(ctx, sess, m.Heartbeat)
	case *tcoderv1.AttachRequest_Report:
		s.takeReport(ctx, sess, m.Report)
	case *tcoderv1.AttachRequest_Segments:
		s.takeSegments(ctx, sess, m.Segments)
	case *tcoderv1.AttachRequest_Sign:
		s.sign(ctx, sess, m.Sign)
	case *tcoderv1.AttachRequest_Draining:
		s.workerDrains(ctx, sess)
	case *tcoderv1.AttachRequest_Leave:
		s.workerLeaves(ctx, sess)
	default:
		return errIncompatible
	}
	return nil
}

// workerDrains marks a worker that is stopping, so that every replica knows.
func (s *Service) workerDrains(ctx context.Context, sess *session) {
	sess.drained()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := s.deps.Store.DrainWorker(ctx, sess.worker.ID); err != nil {
		sess.log.WarnContext(ctx, "worker can't be marked as draining", "error", err)
	}
}

// workerLeaves lets an idle worker go, unless a task came to it meanwhile:
// its assignment is the answer then.
func (s *Service) workerLeaves(ctx context.Context, sess *session) {
	if !sess.idle() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	granted, err := s.deps.Store.LeaveWorker(ctx, sess.worker.ID, sess.number, s.settings.Load().MinWarm)
	if err != nil {
		sess.log.WarnContext(ctx, "worker can't be let go", "error", err)
		return
	}
	if granted {
		sess.letGo()
	}
}
