package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// tap stands between clients and a Redis, and sees every command on the wire.
type tap struct {
	listener net.Listener
	upstream string
	serve    func(client net.Conn) error
	clients  sync.WaitGroup
	scripts  map[string]string // their names, by the sum that calls them

	mu      sync.Mutex
	closed  bool
	conns   map[net.Conn]struct{}
	counts  map[string]int // commands by name; a call of a script by the script's
	failure error
}

// newTap listens. Each connection is served by what the caller chooses.
func newTap(ctx context.Context, upstream string) (*tap, error) {
	scripts, err := scriptNames()
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("tap: %w", err)
	}

	return &tap{
		listener: listener, upstream: upstream, scripts: scripts,
		conns: map[net.Conn]struct{}{}, counts: map[string]int{},
	}, nil
}

func (t *tap) url() string { return "redis://" + t.listener.Addr().String() }

func (t *tap) accept() {
	for {
		client, err := t.listener.Accept()
		if err != nil {
			return // closed
		}
		if !t.hold(client) {
			return
		}
		t.clients.Go(func() {
			defer t.release(client)
			if err := t.serve(client); err != nil && !gone(err) {
				t.mu.Lock()
				t.failure = errors.Join(t.failure, err)
				t.mu.Unlock()
			}
		})
	}
}

// gone says that a connection was closed, by whomever: a process that ends resets those that it hasn't read.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET)
}

// hold notes a connection, to be closed at the end.
func (t *tap) hold(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = conn.Close()

		return false
	}
	t.conns[conn] = struct{}{}

	return true
}

func (t *tap) release(conn net.Conn) {
	_ = conn.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, conn)
}

// pass copies a connection both ways, of which a command may have been read.
func (t *tap) pass(ctx context.Context, client net.Conn, in *bufio.Reader, first []byte) error {
	server, err := new(net.Dialer).DialContext(ctx, "tcp", t.upstream)
	if err != nil {
		return fmt.Errorf("tap: %w", err)
	}
	if !t.hold(server) {
		return nil
	}
	defer t.release(server)
	t.clients.Go(func() {
		_, _ = io.Copy(client, server) // its end shows at the other half
		_ = client.Close()
	})
	if _, err := server.Write(first); err != nil {
		return err
	}
	var raw []byte
	for {
		if raw, err = readValue(in, raw[:0]); err != nil {
			return err
		}
		t.count(raw)
		if _, err := server.Write(raw); err != nil {
			return err
		}
	}
}

// scriptNames are the store's scripts by the sum that calls them. What the
// store loads is what its tests keep.
func scriptNames() (map[string]string, error) {
	paths, err := filepath.Glob("internal/redisstore/testdata/rendered/*.lua")
	if err != nil || len(paths) == 0 {
		return nil, errors.New("the store's scripts aren't here: run the benchmarks in the root of the repository")
	}
	names := make(map[string]string, len(paths))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("scripts: %w", err)
		}
		names[sumOf(string(text))] = strings.TrimSuffix(filepath.Base(path), ".lua")
	}

	return names, nil
}

func sumOf(script string) string {
	sum := sha1.Sum([]byte(script))

	return hex.EncodeToString(sum[:])
}

// count counts a command and returns what it is called: a call of a script is
// called as the script is.
func (t *tap) count(raw []byte) string {
	value, _, err := decodeValue(raw)
	args, _ := value.([]any)
	if err != nil || len(args) == 0 {
		return ""
	}
	word := func(i int) string { text, _ := args[i].(string); return text }
	name := strings.ToUpper(word(0))
	sum := ""
	switch {
	case name == "EVAL" && len(args) > 1:
		sum = sumOf(word(1))
	case name == "EVALSHA" && len(args) > 1:
		sum = word(1)
	}
	if script := t.scripts[sum]; script != "" {
		name = script
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[name]++

	return name
}

// take returns how often each command came, and begins anew.
func (t *tap) take() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := t.counts
	t.counts = map[string]int{}

	return counts
}

// startCounter starts a tap that passes everything on.
func startCounter(ctx context.Context, upstream string) (*tap, error) {
	t, err := newTap(ctx, upstream)
	if err != nil {
		return nil, err
	}
	t.serve = func(client net.Conn) error {
		return t.pass(ctx, client, bufio.NewReaderSize(client, respBuffer), nil)
	}
	t.clients.Go(t.accept)

	return t, nil
}

// close cuts what is open and returns what went wrong.
func (t *tap) close() error {
	t.mu.Lock()
	t.closed = true
	err := t.listener.Close()
	for conn := range t.conns {
		_ = conn.Close()
	}
	t.mu.Unlock()
	t.clients.Wait()

	return errors.Join(err, t.failure)
}
