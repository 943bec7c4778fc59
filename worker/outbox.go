package worker

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// outbox holds what one session has yet to send. Putting never blocks, so a slow
// control plane holds up nobody: messages wait in order, and of heartbeats only
// the newest waits, since each says all that its predecessor said.
type outbox struct {
	mu        sync.Mutex
	queue     []*tcoderv1.AttachRequest
	heartbeat *tcoderv1.AttachRequest
	closed    bool
	wake      chan struct{} // holds one token when there may be something to take
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1)}
}

// put appends a message.
func (o *outbox) put(message *tcoderv1.AttachRequest) {
	o.mu.Lock()
	o.queue = append(o.queue, message)
	o.mu.Unlock()
	o.poke()
}

// putHeartbeat replaces the heartbeat that waits.
func (o *outbox) putHeartbeat(message *tcoderv1.AttachRequest) {
	o.mu.Lock()
	o.heartbeat = message
	o.mu.Unlock()
	o.poke()
}

// close ends the outbox once it is empty.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.poke()
}

func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// next waits for a message; false means that there will be none.
func (o *outbox) next(ctx context.Context) (*tcoderv1.AttachRequest, bool) {
	for {
		message, closed := o.take()
		if message != nil || closed {
			return message, message != nil
		}

		select {
		case <-o.wake:
		case <-ctx.Done():
			return nil, false
		}
	}
}

// takeAll takes what waits without waiting for more: at most so many messages of
// so many bytes together, beside those that were taken before, but always one if
// there are none.
func (o *outbox) takeAll(before []*tcoderv1.AttachRequest, most, mostBytes int) (messages []*tcoderv1.AttachRequest, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()

	messages = before

	size := 0
	for _, message := range before {
		size += proto.Size(message)
	}

	for len(messages) < most {
		message := o.front()
		if message == nil {
			return messages, o.closed
		}

		size += proto.Size(message)
		if size > mostBytes && len(messages) > 0 {
			break
		}

		messages = append(messages, message)
		o.drop()
	}

	return messages, false
}

// pressing waits for more than a heartbeat; false means that ctx ended first.
func (o *outbox) pressing(ctx context.Context) bool {
	for {
		o.mu.Lock()
		pressing := len(o.queue) > 0 || o.closed
		o.mu.Unlock()

		if pressing {
			return true
		}

		select {
		case <-o.wake:
		case <-ctx.Done():
			return false
		}
	}
}

func (o *outbox) take() (message *tcoderv1.AttachRequest, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()

	if message = o.front(); message != nil {
		o.drop()
	}

	return message, o.closed
}

// front is the next message, nil if there is none. Its caller holds the lock.
func (o *outbox) front() *tcoderv1.AttachRequest {
	if len(o.queue) > 0 {
		return o.queue[0]
	}

	return o.heartbeat
}

// drop takes the next message away. Its caller holds the lock.
func (o *outbox) drop() {
	if len(o.queue) > 0 {
		o.queue = o.queue[1:]
	} else {
		o.heartbeat = nil
	}
}
