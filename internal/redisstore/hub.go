package redisstore

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// quietFor is how long a subscribed connection may be silent before it is
	// asked whether it lives. Each question costs a command: 30 an hour, beside
	// the 240 of the sweeper's tick. What is missed meanwhile costs time: the
	// safety ticks find it.
	quietFor = 2 * time.Minute
	// answerWithin is how long the answer may take.
	answerWithin = 5 * time.Second
	// The pause before a reconnect doubles between these.
	minReconnect = 50 * time.Millisecond
	maxReconnect = 2 * time.Second
)

// hub shares one subscribed connection among all watchers of a store. Its
// goroutine runs from the first watcher until close. What happens to jobs comes
// on one channel for all of them; a job's own says that it is watched.
type hub struct {
	client redis.UniversalClient
	keys   keys

	// wire orders what is sent on the connection; it is taken before mu, which
	// is never held while the network is waited for.
	wire sync.Mutex

	mu       sync.Mutex
	channels map[string]*subscription
	conn     *redis.PubSub // nil while there is none
	done     chan struct{} // nil before the first watcher; closed when the goroutine ends
	stop     chan struct{}
	closed   bool
}

// subscription is a channel of Redis with those who watch it.
type subscription struct {
	watchers  map[watcher]struct{}
	live      chan struct{} // closed at the first confirmation
	confirmed bool
	asked     bool // on the connection that there is: a second confirmation would look like a reconnect
}

func newHub(client redis.UniversalClient, keys keys) *hub {
	return &hub{client: client, keys: keys, channels: map[string]*subscription{}, stop: make(chan struct{})}
}

// add subscribes a watcher until ctx ends, and returns when the subscription is live.
func (h *hub) add(ctx context.Context, channel string, w watcher) error {
	sub, err := h.register(ctx, channel, w)
	if err != nil {
		return err
	}

	h.sync(ctx, channel)

	timer := time.NewTimer(answerWithin)
	defer timer.Stop()

	select {
	case <-sub.live:
		context.AfterFunc(ctx, func() { h.remove(context.WithoutCancel(ctx), channel, w) })

		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = errors.New("no confirmation of the subscription")
	case <-h.stop:
		err = redis.ErrClosed
	}

	h.remove(context.WithoutCancel(ctx), channel, w)

	return err
}

// register notes a watcher, and starts the goroutine with the first.
func (h *hub) register(ctx context.Context, channel string, w watcher) (*subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.closed {
		return nil, redis.ErrClosed
	}

	sub := h.channels[channel]
	if sub == nil {
		sub = &subscription{watchers: map[watcher]struct{}{}, live: make(chan struct{})}
		h.channels[channel] = sub
	}

	sub.watchers[w] = struct{}{}

	if h.done == nil {
		h.done = make(chan struct{})

		go h.run(context.WithoutCancel(ctx))
	}

	return sub, nil
}

func (h *hub) remove(ctx context.Context, channel string, w watcher) {
	w.close()

	if h.unregister(channel, w) {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()

		h.sync(ctx, channel)
	}
}

// unregister forgets a watcher, and reports whether it was its channel's last.
func (h *hub) unregister(channel string, w watcher) bool {
	h.mu.Lock()
	defer h.mu.Unlock()

	sub := h.channels[channel]
	if sub == nil {
		return false
	}

	delete(sub.watchers, w)

	if len(sub.watchers) > 0 {
		return false
	}

	delete(h.channels, channel)

	return true
}

// sync subscribes to a channel that is watched and was not asked for yet, or leaves one
// that nobody watches. A failure shows at the receiver, which renews the
// connection with what is watched then.
func (h *hub) sync(ctx context.Context, channel string) {
	h.wire.Lock()
	defer h.wire.Unlock()

	h.mu.Lock()
	conn, sub := h.conn, h.channels[channel]
	settled := conn == nil || (sub != nil && sub.asked)
	jobs := h.watchesJobs()

	if sub != nil && conn != nil {
		sub.asked = true
	}
	h.mu.Unlock()

	switch {
	case settled:
	case sub != nil && jobs:
		// In this order: where the second is confirmed nothing is missed any more.
		_ = conn.Subscribe(ctx, h.keys.notices, channel)
	case sub != nil:
		_ = conn.Subscribe(ctx, channel)
	case jobs:
		_ = conn.Unsubscribe(ctx, channel)
	default:
		_ = conn.Unsubscribe(ctx, channel, h.keys.notices)
	}
}

// watchesJobs reports whether somebody watches a job. Its caller holds mu.
func (h *hub) watchesJobs() bool {
	watched := len(h.channels)
	if h.channels[h.keys.wake] != nil {
		watched--
	}

	return watched > 0
}

// close ends all watches and returns when the goroutine has ended.
func (h *hub) close() {
	h.mu.Lock()

	if h.closed {
		h.mu.Unlock()

		return
	}

	h.closed = true
	close(h.stop)

	conn, done := h.conn, h.done

	for _, sub := range h.channels {
		for w := range sub.watchers {
			w.close()
		}
	}

	clear(h.channels)
	h.mu.Unlock()

	if conn != nil {
		_ = conn.Close() // wakes the receiver; it may have closed it just now
	}

	if done != nil {
		<-done
	}
}

// run keeps a connection that is subscribed to all channels.
func (h *hub) run(ctx context.Context) {
	defer close(h.done)

	pause := minReconnect

	for {
		conn, ok := h.connect(ctx)
		if !ok {
			return
		}

		heard := h.receive(ctx, conn)

		if !h.disconnect(conn) {
			return
		}

		if heard {
			pause = minReconnect
		}

		timer := time.NewTimer(pause)
		pause = min(2*pause, maxReconnect)

		select {
		case <-timer.C:
		case <-h.stop:
			timer.Stop()

			return
		}
	}
}

// connect opens a connection and subscribes it to all channels. False after close.
func (h *hub) connect(ctx context.Context) (*redis.PubSub, bool) {
	h.wire.Lock()
	defer h.wire.Unlock()

	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()

	conn := h.client.Subscribe(ctx) // sends nothing yet

	h.mu.Lock()
	closed, channels := h.closed, slices.Collect(maps.Keys(h.channels))

	if h.watchesJobs() {
		channels = slices.Insert(channels, 0, h.keys.notices)
	}

	if !closed {
		h.conn = conn
	}

	for _, sub := range h.channels {
		sub.asked = true
	}
	h.mu.Unlock()

	if closed {
		_ = conn.Close() // it was never opened

		return nil, false
	}

	if len(channels) > 0 {
		_ = conn.Subscribe(ctx, channels...) // a failure shows at the receiver
	}

	return conn, true
}

// disconnect drops a connection that failed. False after close.
func (h *hub) disconnect(conn *redis.PubSub) bool {
	_ = conn.Close() // it failed already, or close did it

	h.mu.Lock()
	defer h.mu.Unlock()

	h.conn = nil

	for _, sub := range h.channels {
		sub.asked = false
	}

	return !h.closed
}

// receive hands on what comes, until the connection fails. True if anything came.
func (h *hub) receive(ctx context.Context, conn *redis.PubSub) bool {
	heard, asked := false, false

	for {
		wait := quietFor
		if asked {
			wait = answerWithin
		}

		message, err := conn.ReceiveTimeout(ctx, wait)

		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() && !asked {
			asked = true
			err = conn.Ping(ctx)
		}

		if err != nil {
			return heard
		}

		if message == nil {
			continue
		}

		heard, asked = true, false

		switch m := message.(type) {
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				h.confirmed(m.Channel)
			} else {
				h.left(ctx, conn, m.Channel)
			}
		case *redis.Message:
			h.deliver(m.Channel, m.Payload)
		}
	}
}

// confirmed notes that a channel is live. What came between two confirmations may be lost.
func (h *hub) confirmed(channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()

	sub := h.channels[channel]
	if sub == nil {
		return
	}

	if !sub.confirmed {
		sub.confirmed = true
		close(sub.live)

		return
	}

	for w := range sub.watchers {
		w.reconnected()
	}
}

// left subscribes again to a channel that was left while somebody came to
// watch it: a confirmation from before may have passed for that of the newcomer.
func (h *hub) left(ctx context.Context, conn *redis.PubSub, channel string) {
	h.wire.Lock()
	defer h.wire.Unlock()

	h.mu.Lock()
	watched := h.channels[channel] != nil || (channel == h.keys.notices && h.watchesJobs())
	h.mu.Unlock()

	if watched {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()

		_ = conn.Subscribe(ctx, channel) // a failure shows at the receiver
	}
}

func (h *hub) deliver(channel, payload string) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if channel != h.keys.notices {
		h.tell(channel, payload)

		return
	}

	kind, rest, _ := strings.Cut(payload, " ")

	switch kind {
	case noticeSequence:
		for rest != "" {
			var id, sequence string

			id, rest, _ = strings.Cut(rest, " ")
			sequence, rest, _ = strings.Cut(rest, " ")

			h.tell(h.keys.jobChannel(id), noticeSequence+" "+sequence)
		}
	case noticeProgress:
		for line := range strings.SplitSeq(rest, "\n") {
			id, progress, _ := strings.Cut(line, " ")
			h.tell(h.keys.jobChannel(id), noticeProgress+" "+progress)
		}
	default: // whatever it was: all read again
		for channel := range h.channels {
			h.tell(channel, payload)
		}
	}
}

// tell gives those who watch a channel what came on it. Its caller holds mu.
func (h *hub) tell(channel, payload string) {
	if sub := h.channels[channel]; sub != nil {
		for w := range sub.watchers {
			w.notify(payload)
		}
	}
}
