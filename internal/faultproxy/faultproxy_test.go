package faultproxy_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second
	// silence is how long a held connection is watched for bytes that must not come.
	silence = 50 * time.Millisecond
)

// setup returns a proxy before a server that answers each line with itself.
func setup(t *testing.T) *faultproxy.Proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()         //nolint:errcheck // likewise
				_, _ = io.Copy(conn, conn) // what the other side ends is no failure
			}()
		}
	}()
	proxy, err := faultproxy.New("tcp", listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() {
		proxy.Close()
		require.NoError(t, listener.Close())
		<-done
	})

	return proxy
}

type caller struct {
	net.Conn

	lines *bufio.Reader
}

func dial(t *testing.T, proxy *faultproxy.Proxy) *caller {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", proxy.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))

	return &caller{conn, bufio.NewReader(conn)}
}

func (c *caller) say(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(c, line+"\n")
	require.NoError(t, err)
}

func (c *caller) hear(t *testing.T, line string) {
	t.Helper()
	heard, err := c.lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, line+"\n", heard)
}

// hearNothing guarantees that a connection is silent for a moment.
func (c *caller) hearNothing(t *testing.T) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(silence)))
	_, err := c.lines.ReadString('\n')
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
}

// Without a fault, bytes pass and the end of one direction does, too.
func TestPass(t *testing.T) {
	t.Parallel()
	proxy := setup(t)
	c := dial(t, proxy)
	c.say(t, "one")
	c.hear(t, "one")
	require.Equal(t, 1, proxy.Live())
	long := strings.Repeat("x", 1<<20)
	go func() {
		_, _ = io.WriteString(c, long)
		if half, ok := c.Conn.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	}()
	heard, err := io.ReadAll(c.lines)
	require.NoError(t, err)
	require.Equal(t, long, string(heard))
	require.Eventually(t, func() bool { return proxy.Live() == 0 }, patience, time.Millisecond)
}

// A cut resets the connections that there are, and lets the next live.
func TestCut(t *testing.T) {
	t.Parallel()
	proxy := setup(t)
	c := dial(t, proxy)
	c.say(t, "one")
	c.hear(t, "one")
	proxy.Cut()
	_, err := c.lines.ReadString('\n')
	require.ErrorIs(t, err, syscall.ECONNRESET)
	c = dial(t, proxy)
	c.say(t, "two")
	c.hear(t, "two")
}

// What is held doesn't arrive, on connections that come later either; after
// the release all of it does.
func TestHold(t *testing.T) {
	t.Parallel()
	for _, direction := range []faultproxy.Direction{faultproxy.Up, faultproxy.Down, faultproxy.Both} {
		proxy := setup(t)
		old := dial(t, proxy)
		old.say(t, "one")
		old.hear(t, "one")
		proxy.Hold(direction)
		late := dial(t, proxy)
		old.say(t, "two")
		late.say(t, "three")
		old.hearNothing(t)
		late.hearNothing(t)
		proxy.Release()
		old.hear(t, "two")
		late.hear(t, "three")
	}
}

// A cut of a held connection loses what was held.
func TestCutWhileHeld(t *testing.T) {
	t.Parallel()
	proxy := setup(t)
	c := dial(t, proxy)
	proxy.Hold(faultproxy.Down)
	c.say(t, "one")
	c.hearNothing(t)
	proxy.Cut()
	proxy.Release()
	_, err := c.lines.ReadString('\n')
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// A delay counts once for each direction, not for each byte.
func TestDelay(t *testing.T) {
	t.Parallel()
	const delay = 60 * time.Millisecond
	proxy := setup(t)
	c := dial(t, proxy)
	proxy.Delay(delay)
	start := time.Now()
	for range 100 {
		c.say(t, "line")
	}
	for range 100 {
		c.hear(t, "line")
	}
	took := time.Since(start)
	require.GreaterOrEqual(t, took, 2*delay)
	require.Less(t, took, 100*delay)
}

// A narrow connection takes as long as its bandwidth says.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	proxy := setup(t)
	c := dial(t, proxy)
	proxy.Bandwidth(256 << 10)
	start := time.Now()
	c.say(t, strings.Repeat("x", 32<<10))
	c.hear(t, strings.Repeat("x", 32<<10))
	require.GreaterOrEqual(t, time.Since(start), 125*time.Millisecond)
}

// A target that isn't there resets who asks for it.
func TestNoTarget(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.2:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	proxy, err := faultproxy.New("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer proxy.Close()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", proxy.Addr())
	if err == nil { // it may learn of it earlier
		_, err = conn.Read(make([]byte, 1))
		defer conn.Close() //nolint:errcheck // nothing was written
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}
