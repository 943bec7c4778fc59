package pool

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

const (
	// silentCalls is how many heartbeats may pass without a call before a session
	// of calls is over, as a stream is that was cut.
	silentCalls = 2
	// answerWithin is how long a call of another replica's session waits for what
	// its messages ask for, which is worked on beside it.
	answerWithin = time.Second
	// maxAnswerBytes bounds an answer. More comes with the next.
	maxAnswerBytes = 8 << 20
	// unreadMessages is how many messages may wait for a worker to acknowledge them.
	unreadMessages = 4 * outboundMessages
)

// calls are what a session has beyond a stream's: the messages that its worker
// hasn't acknowledged, and whose turn it is.
type calls struct {
	turn    chan struct{} // holds one token, which the call that is served takes
	silence *time.Timer   // ends the session; it runs while no call is served

	mu      sync.Mutex
	waiting context.CancelFunc // of the newest call

	// Of the call that is served.
	unread   []*tcoderv1.AttachResponse
	position uint64 // of the last message that was taken from the session's queue
}

func newCalls(patience time.Duration) *calls {
	c := &calls{turn: make(chan struct{}, 1), silence: time.NewTimer(patience)}
	c.turn <- struct{}{}
	return c
}

// enter begins a call, as soon as the one before it is over: that one's worker
// has given it up, or it would not make another. The call lasts until leave.
func (c *calls) enter(ctx context.Context, patience time.Duration) (_ context.Context, leave func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	if c.waiting != nil {
		c.waiting()
	}
	c.waiting = cancel
	c.mu.Unlock()
	select {
	case <-c.turn:
	case <-ctx.Done():
		cancel()
		return nil, nil, context.Cause(ctx)
	}
	c.silence.Stop()
	return ctx, func() {
		cancel()
		c.silence.Reset(patience)
		c.turn <- struct{}{}
	}, nil
}

// acknowledge forgets the messages up to a position.
func (c *calls) acknowledge(received uint64) {
	first := c.position - uint64(len(c.unread)) // the position before the first
	if received > first {
		c.unread = c.unread[min(received-first, uint64(len(c.unread))):]
	}
}

// collect takes what waits in the session's queue; false if the worker has left
// too much of it unread.
func (c *calls) collect(sess *session) bool {
	for {
		select {
		case m := <-sess.out:
			c.add(m)
		default:
			return len(c.unread) <= unreadMessages
		}
	}
}

func (c *calls) add(m *tcoderv1.AttachResponse) {
	c.unread = append(c.unread, m)
	c.position++
}

// answer is what isn't acknowledged, or as much of it as a worker reads at a time.
func (c *calls) answer(session int64) *tcoderv1.SyncResponse {
	n, size := 0, 0
	for ; n < len(c.unread); n++ {
		size += proto.Size(c.unread[n])
		if n > 0 && size > maxAnswerBytes {
			break
		}
	}
	return &tcoderv1.SyncResponse{
		Session: session, Messages: c.unread[:n], Position: c.position - uint64(len(c.unread)-n),
	}
}

// Sync serves one call of a worker whose streams don't live.
func (s *Service) Sync(ctx context.Context, req *tcoderv1.SyncRequest) (*tcoderv1.SyncResponse, error) {
	if !s.begin() {
		return nil, errDraining
	}
	defer s.work.Done()

	sess := s.calling(req.GetHello().GetWorkerId(), req.GetSession())
	if id, bound := interceptor.Machine(ctx); sess != nil && bound && id != sess.worker.MachineID {
		return nil, errOtherMachine
	}
	greeted, wait := 0, req.GetWait().AsDuration()
	if sess == nil {
		var err error
		if sess, err = s.openCalls(ctx, req.GetHello()); err != nil {
			return nil, err
		}
		if req.GetSession() != 0 {
			// Another replica's: a proxy that goes round may take each call elsewhere.
			// A welcome alone is no answer then, or there would be nothing but those.
			greeted = 1
			if len(req.GetMessages()) > 0 {
				wait = max(wait, answerWithin)
			}
		}
	}
	ctx, leave, err := sess.calls.enter(ctx, silentCalls*s.cfg.Heartbeat)
	if err != nil {
		return nil, err
	}
	defer leave()

	if sess.number == req.GetSession() {
		sess.calls.acknowledge(req.GetReceived())
	}
	for _, m := range req.GetMessages() {
		if err := s.handle(ctx, sess, m); err != nil {
			sess.end(err)
			return nil, err
		}
	}
	if err := s.await(ctx, sess, greeted, wait); err != nil {
		return nil, err
	}
	return sess.calls.answer(sess.number), nil
}

// calling returns a worker's session of calls, if this replica holds it.
func (s *Service) calling(workerID string, number int64) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess := s.sessions[workerID]
	if sess == nil || sess.calls == nil || sess.number != number {
		return nil
	}
	return sess
}

// openCalls attaches a worker that makes calls. Its session outlives the call.
func (s *Service) openCalls(ctx context.Context, hello *tcoderv1.Hello) (*session, error) {
	calls := newCalls(silentCalls * s.cfg.Heartbeat)
	sess, err := s.open(ctx, hello, calls)
	if err != nil {
		return nil, err
	}
	// Run waits for the call, and so for what it begins.
	s.work.Go(func() {
		select {
		case <-sess.ended:
		case <-s.draining:
			sess.end(errDraining)
		case <-calls.silence.C:
			sess.end(errSilent)
		}
		calls.silence.Stop()
		s.close(context.WithoutCancel(ctx), sess, sess.cause)
	})
	return sess, nil
}

// await returns as soon as there is more to say than a greeting of some
// messages, or the call has waited for long enough. An error ends the session.
func (s *Service) await(ctx context.Context, sess *session, greeting int, wait time.Duration) error {
	calls := sess.calls
	if !calls.collect(sess) {
		sess.end(errSlowWorker)
		return errSlowWorker
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for len(calls.unread) <= greeting {
		select {
		case m := <-sess.out:
			calls.add(m)
		case <-timer.C:
			return nil
		case <-sess.ended:
			return sess.cause
		case <-s.draining:
			return errDraining
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	// What was said at once goes at once.
	calls.collect(sess)
	return nil
}
