// Package faultproxy gives tests a network that fails: a TCP proxy that cuts
// connections, lets them go half-open, delays what they carry, and narrows
// them.
//
// A proxy stands between a client and one target. Its faults hold for all its
// connections, those that come later included, until they are taken back.
// Bytes are never changed, reordered or dropped on a connection that lives:
// TCP doesn't do that either.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// dialTimeout bounds how long the target may take to answer a connection.
const dialTimeout = 5 * time.Second

// Direction is a way through the proxy.
type Direction int

// The directions, and both of them.
const (
	Up   Direction = 1 << iota // from the client to the target
	Down                       // from the target to the client
	Both = Up | Down
)

// Proxy passes connections on to one target.
type Proxy struct {
	listener        net.Listener
	network, target string
	stop            context.CancelFunc
	work            sync.WaitGroup

	mu    sync.Mutex
	links map[*link]struct{}
	weather
}

// weather is what happens to bytes. It is replaced as a whole, with changed
// closed, whenever it changes.
type weather struct {
	changed   chan struct{}
	held      Direction
	delay     time.Duration
	bandwidth int // bytes per second; 0: any number
}

// New starts a proxy on a free loopback port, before a target as net.Dial
// takes it. Close it after use.
func New(network, target string) (*Proxy, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy before %s: %w", target, err)
	}

	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{
		listener: listener, network: network, target: target, stop: stop,
		links: map[*link]struct{}{}, weather: weather{changed: make(chan struct{})},
	}

	p.work.Go(func() { p.accept(ctx) })

	return p, nil
}

// Addr is where clients connect to: host and port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Close cuts all connections and returns when nothing of the proxy runs.
func (p *Proxy) Close() {
	p.stop()
	_ = p.listener.Close() // it is closed already, or by this
	p.Cut()
	p.work.Wait()
}

// Live is how many connections there are.
func (p *Proxy) Live() int {
	p.mu.Lock()
	defer p.mu.Unlock()

	return len(p.links)
}

// Cut ends every connection with a reset, as a router does that was started
// again. New ones are taken.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()

	for l := range p.links {
		l.reset()
	}
}

// Hold keeps back everything that goes in a direction, also the end of a
// connection: to who waits for it, the other side is silent. What is held
// passes after Release, as TCP sends again what got lost. Connections are taken
// meanwhile, and are as silent.
func (p *Proxy) Hold(d Direction) { p.change(func(w *weather) { w.held |= d }) }

// Release lets through what was held, in both directions.
func (p *Proxy) Release() { p.change(func(w *weather) { w.held = 0 }) }

// Delay makes every byte arrive so much later, in both directions.
func (p *Proxy) Delay(d time.Duration) { p.change(func(w *weather) { w.delay = d }) }

// Bandwidth narrows each direction of each connection to so many bytes per
// second; 0 takes that back.
func (p *Proxy) Bandwidth(bytesPerSecond int) {
	p.change(func(w *weather) { w.bandwidth = bytesPerSecond })
}

func (p *Proxy) change(f func(*weather)) {
	p.mu.Lock()
	defer p.mu.Unlock()

	f(&p.weather)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) now() weather {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.weather
}

func (p *Proxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}

		if err != nil {
			continue // the connection was gone before it was taken
		}

		p.work.Go(func() { p.serve(ctx, client) })
	}
}

// serve passes one connection on until both sides have ended it, or it is cut.
func (p *Proxy) serve(ctx context.Context, client net.Conn) {
	dialer := net.Dialer{Timeout: dialTimeout}

	target, err := dialer.DialContext(ctx, p.network, p.target)
	if err != nil {
		_ = abort(client) // as if the proxy weren't there

		return
	}

	l := &link{client: client, target: target, over: make(chan struct{})}

	p.mu.Lock()
	p.links[l] = struct{}{}
	p.mu.Unlock()

	if ctx.Err() != nil {
		l.reset() // Close may have looked before it was there
	}

	var pipes sync.WaitGroup

	pipes.Go(func() { p.pipe(l, target, client, Up) })
	pipes.Go(func() { p.pipe(l, client, target, Down) })
	pipes.Wait()
	l.end(net.Conn.Close)

	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// link is one connection through the proxy.
type link struct {
	client, target net.Conn
	over           chan struct{} // closed when it is cut, or has ended
	once           sync.Once
}

// reset ends both halves at once, with what is on the way.
func (l *link) reset() { l.end(abort) }

// end closes both halves, the first time it is called.
func (l *link) end(closeHalf func(net.Conn) error) {
	l.once.Do(func() {
		close(l.over)
		_ = closeHalf(l.client) // what the other side ended is no failure
		_ = closeHalf(l.target)
	})
}

// abort closes a connection so that the other side learns of it by a reset.
func abort(c net.Conn) error {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be closed already
	}

	return c.Close()
}
