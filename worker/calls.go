package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
)

const (
	// maxCallMessages is how many messages a call may carry.
	maxCallMessages = 256
	// maxCallBytes is how large they may be together: one that is larger goes
	// alone, so that what is refused for its size is refused for itself. Proxies
	// take a megabyte and more.
	maxCallBytes = 512 << 10
	// busyWait is how long a call of a worker with tasks waits for something to
	// hear: progress goes with the next.
	busyWait = time.Second
	// maxWait and minWait bound the wait of a call.
	maxWait = 30 * time.Second
	minWait = 100 * time.Millisecond
	// callSlack is how much longer than its wait a call may take.
	callSlack = 15 * time.Second
	// failedCalls is after how many failures in a row the session is over.
	failedCalls = 4
	// callPause is the pause after the first of them; it doubles.
	callPause = 50 * time.Millisecond
)

// errMoreToSay ends a call that only listens.
var errMoreToSay = errors.New("there is more to say")

// caller stands for a stream by one call after the other. A call that says
// something is answered soon; one that only listens waits for an answer, and
// is given up as soon as there is something to say. What a call without an
// answer said is said again.
type caller struct {
	*session

	pool     tcoderv1connect.PoolServiceClient
	number   int64  // of the session, by the control plane
	received uint64 // position of the last message
	said     []*tcoderv1.AttachRequest
	wait     time.Duration // for an idle worker
	most     time.Duration // that a proxy lets a call wait
	failed   int           // calls in a row
}

func (s *session) call(ctx context.Context, pool tcoderv1connect.PoolServiceClient) error {
	c := &caller{session: s, pool: pool, wait: busyWait, most: maxWait}

	for {
		hello, err := s.greeting(ctx)
		if err != nil {
			return err
		}

		var closed bool

		c.said, closed = s.out.takeAll(c.said, maxCallMessages, maxCallBytes)
		if closed && len(c.said) == 0 {
			return nil
		}

		if err := c.exchange(ctx, hello); err != nil {
			return err
		}
	}
}

// exchange makes one call and passes its answer on. An error is the end.
func (c *caller) exchange(ctx context.Context, hello *tcoderv1.Hello) error {
	request := &tcoderv1.SyncRequest{
		Hello: hello, Session: c.number, Received: c.received, Messages: c.said, Wait: durationpb.New(c.patience(hello)),
	}
	start := time.Now()

	response, err := c.do(ctx, request)

	switch {
	case err == nil:
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errMoreToSay):
		return nil
	case refusal(err) != nil || refusedMessage(err):
		return err
	default:
		return c.failure(ctx, err, request.GetWait().AsDuration(), time.Since(start))
	}

	c.failed, c.said = 0, nil
	c.number, c.received = response.GetSession(), response.GetPosition()

	for _, message := range response.GetMessages() {
		if welcome := message.GetWelcome(); welcome != nil {
			c.wait = min(max(welcome.GetHeartbeatInterval().AsDuration(), busyWait), maxWait)
		}

		select {
		case c.in <- message:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}

	return nil
}

// patience is how long the next call waits for something to hear.
func (c *caller) patience(hello *tcoderv1.Hello) time.Duration {
	switch {
	case len(c.said) > 0 || c.number == 0:
		return 0
	case len(hello.GetHeld()) > 0:
		return min(busyWait, c.most)
	default:
		return min(c.wait, c.most)
	}
}

// do makes one call. One that only listens ends when there is more to say.
func (c *caller) do(ctx context.Context, request *tcoderv1.SyncRequest) (*tcoderv1.SyncResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, request.GetWait().AsDuration()+callSlack, errNoAnswer)
	defer cancel()

	if len(request.GetMessages()) > 0 {
		response, err := c.pool.Sync(ctx, request)
		if err != nil {
			err = orUnsayable(err, request)
		}

		return response, err
	}

	ctx, giveUp := context.WithCancelCause(ctx)
	watched := make(chan struct{})

	go func() {
		defer close(watched)

		if c.out.pressing(ctx) {
			giveUp(errMoreToSay)
		}
	}()

	response, err := c.pool.Sync(ctx, request)
	if err != nil && errors.Is(context.Cause(ctx), errMoreToSay) {
		err = errMoreToSay
	}

	giveUp(nil)
	<-watched

	return response, err
}

// failure learns from a call that the network ended: a proxy that cuts calls
// which wait is asked to wait less.
func (c *caller) failure(ctx context.Context, err error, wait, took time.Duration) error {
	if wait > 0 && took > minWait && took <= wait+time.Second {
		c.most = max(min(took, wait)/2, minWait)
	}

	c.failed++
	if c.failed >= failedCalls {
		return fmt.Errorf("sync: %w", err)
	}

	pause := time.NewTimer(jitter(callPause << c.failed))
	defer pause.Stop()

	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
