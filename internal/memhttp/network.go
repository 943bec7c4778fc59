// Package memhttp is a network in memory for HTTP servers and clients: theirs
// stay as they are in production, with all of net/http between them, and only
// what dials and what listens is ours. Nothing in it blocks outside the
// program, so it works inside a testing/synctest bubble, where hours of
// heartbeats pass in no time.
//
// A [Network] also breaks connections the way networks do: cut, half-open,
// held up, refused.
package memhttp

import (
	"context"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// Network connects clients to servers by name. Every fault names both, and an
// empty name stands for all. It acts on the connections that are open, but for
// Refuse.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	links     map[*link]struct{}
	refused   map[path]bool
}

// path is from whom to whom a connection goes.
type path struct{ from, to string }

// link is an open connection.
type link struct {
	path

	up, down *half // from the client, to the client
}

// New returns a network on which nobody listens.
func New() *Network {
	return &Network{listeners: map[string]*listener{}, links: map[*link]struct{}{}, refused: map[path]bool{}}
}

// Listen gives a name to a server, until the listener is closed.
func (n *Network) Listen(name string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()

	if n.listeners[name] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: address(name), Err: syscall.EADDRINUSE}
	}

	l := &listener{network: n, name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[name] = l

	return l, nil
}

// Dialer dials as a client of that name. Ports are ignored.
func (n *Network) Dialer(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, to string) (net.Conn, error) {
		if host, _, err := net.SplitHostPort(to); err == nil {
			to = host
		}

		conn, err := n.dial(ctx, path{from, to})
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "memory", Addr: address(to), Err: err}
		}

		return conn, nil
	}
}

func (n *Network) dial(ctx context.Context, p path) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[p.to]

	for refused := range n.refused {
		if refused.covers(p) {
			l = nil
		}
	}
	n.mu.Unlock()

	if l == nil {
		return nil, syscall.ECONNREFUSED
	}

	made := &link{path: p, up: newHalf(), down: newHalf()}
	forget := sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()

		delete(n.links, made)
	})
	client := &conn{in: made.down, out: made.up, local: address(p.from), remote: address(p.to), forget: forget}
	server := &conn{in: made.up, out: made.down, local: address(p.to), remote: address(p.from), forget: func() {}}

	n.mu.Lock()
	n.links[made] = struct{}{}
	n.mu.Unlock()

	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		forget()

		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		forget()

		return nil, context.Cause(ctx)
	}
}

// Client returns a client of that name for HTTP/2 without TLS.
func (n *Network) Client(from string) *http.Client { return &http.Client{Transport: n.Transport(from)} }

// Transport is what Client uses.
func (n *Network) Transport(from string) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)

	return &http.Transport{Protocols: protocols, DialContext: n.Dialer(from)}
}

// Cut resets connections: both ends are told.
func (n *Network) Cut(from, to string) {
	n.each(path{from, to}, func(l *link) {
		l.up.reset()
		l.down.reset()
	})
}

// Lose leaves connections half-open: what either end writes or closes from now
// on vanishes, and neither is told.
func (n *Network) Lose(from, to string) {
	n.each(path{from, to}, func(l *link) {
		l.up.lose()
		l.down.lose()
	})
}

// Hold keeps what a server writes from its clients, as if they didn't read,
// until Release. What fits no buffer blocks the server.
func (n *Network) Hold(from, to string) {
	n.each(path{from, to}, func(l *link) { l.down.hold(true) })
}

// Release ends Hold.
func (n *Network) Release(from, to string) {
	n.each(path{from, to}, func(l *link) { l.down.hold(false) })
}

// Refuse has new connections refused, or not any more.
func (n *Network) Refuse(from, to string, refuse bool) {
	n.mu.Lock()
	defer n.mu.Unlock()

	if refuse {
		n.refused[path{from, to}] = true
	} else {
		delete(n.refused, path{from, to})
	}
}

// Open counts the open connections.
func (n *Network) Open(from, to string) int {
	open := 0
	n.each(path{from, to}, func(*link) { open++ })

	return open
}

func (n *Network) each(p path, f func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()

	for l := range n.links {
		if p.covers(l.path) {
			f(l)
		}
	}
}

// covers reports whether p, with its wildcards, means other.
func (p path) covers(other path) bool {
	return (p.from == "" || p.from == other.from) && (p.to == "" || p.to == other.to)
}

type listener struct {
	network *Network
	name    string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept, and gives the name back.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.network.mu.Lock()
		defer l.network.mu.Unlock()

		delete(l.network.listeners, l.name)
	})

	return nil
}

// Addr is the loopback: nobody else reaches it.
func (l *listener) Addr() net.Addr { return address("localhost:80") }

// address is a name on a network.
type address string

// Network names the kind of network.
func (address) Network() string { return "memory" }

// String is the name.
func (a address) String() string { return string(a) }
