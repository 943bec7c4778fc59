package memhttp_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/tcoder-dev/tcoder/internal/memhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves a handler as "server", as production does, until the test ends.
func serve(t *testing.T, network *memhttp.Network, handler http.HandlerFunc) {
	t.Helper()

	listener, err := network.Listen("server")
	require.NoError(t, err)

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: handler, Protocols: protocols, ReadHeaderTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}

	var serving sync.WaitGroup

	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		_ = server.Close()

		serving.Wait()
	})
}

// open sends a request to the server and returns its answer, which goes on.
func open(t *testing.T, client *http.Client) io.Reader {
	t.Helper()
	t.Cleanup(client.CloseIdleConnections)

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://server/", http.NoBody)
	require.NoError(t, err)
	response, err := client.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, response.Body.Close()) })

	return response.Body
}

// tick says a word a second until the client is gone.
func tick(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)

	for {
		if _, err := io.WriteString(w, "tick\n"); err != nil {
			return
		}

		if err := control.Flush(); err != nil {
			return
		}

		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
			return
		}
	}
}

// TestConnections guarantees that a connection behaves as the interface
// net.Conn says.
func TestConnections(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (near, far net.Conn, stop func(), err error) {
		network := memhttp.New()

		listener, err := network.Listen("server")
		if err != nil {
			return nil, nil, nil, err
		}

		accepted := make(chan net.Conn, 1)

		go func() {
			if conn, err := listener.Accept(); err == nil {
				accepted <- conn
			}
		}()

		near, err = network.Dialer("client")(t.Context(), "tcp", "server:80")
		if err != nil {
			return nil, nil, nil, err
		}

		far = <-accepted

		return near, far, func() {
			_ = near.Close()
			_ = far.Close()
			_ = listener.Close()
		}, nil
	})
}

// TestHours guarantees that a stream lives for hours of fake time, with the
// pings of HTTP/2 on both sides.
func TestHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := memhttp.New()
		serve(t, network, tick)
		start := time.Now()
		lines := bufio.NewScanner(open(t, network.Client("client")))

		for range 2 * 3600 {
			require.True(t, lines.Scan())
		}

		require.Equal(t, 2*time.Hour-time.Second, time.Since(start))
		require.Equal(t, 1, network.Open("client", "server"))
	})
}

// TestCut guarantees that both ends of a connection that was cut are told at
// once, and that others live on.
func TestCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := memhttp.New()
		ended := make(chan struct{}, 2)
		serve(t, network, func(w http.ResponseWriter, r *http.Request) {
			tick(w, r)
			ended <- struct{}{}
		})

		cut := open(t, network.Client("a"))
		other := bufio.NewScanner(open(t, network.Client("b")))
		start := time.Now()

		network.Cut("a", "")

		_, err := io.ReadAll(cut)
		require.Error(t, err)
		<-ended
		require.Zero(t, time.Since(start))

		for range 10 {
			require.True(t, other.Scan())
		}
	})
}

// TestLose guarantees that nobody is told of a half-open connection: the pings
// find out.
func TestLose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := memhttp.New()
		serve(t, network, tick)

		transport := network.Transport("client")
		transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second}
		body := open(t, &http.Client{Transport: transport})
		start := time.Now()

		network.Lose("", "server")

		_, err := io.ReadAll(body)
		require.Error(t, err)
		require.Equal(t, 15*time.Second, time.Since(start))
	})
}

// TestHold guarantees that a client which doesn't read holds its server up once
// the buffers are full, and gets all of it later.
func TestHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 8 << 20

		network := memhttp.New()
		sent := make(chan error, 1)
		began := make(chan struct{})
		serve(t, network, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()

			<-began

			_, err := w.Write(make([]byte, size))
			sent <- err
		})

		body := open(t, network.Client("client"))

		network.Hold("client", "server")
		close(began)
		synctest.Wait()
		require.Empty(t, sent)

		network.Release("client", "server")

		all, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Len(t, all, size)
		require.NoError(t, <-sent)
	})
}

// TestRefuse guarantees that nobody is reached who doesn't listen, and that a
// name can be listened on again.
func TestRefuse(t *testing.T) {
	t.Parallel()

	network := memhttp.New()
	dial := network.Dialer("client")

	requireRefused := func() {
		_, err := dial(context.Background(), "tcp", "server:80")

		var refused *net.OpError

		require.ErrorAs(t, err, &refused)
		require.Equal(t, "dial", refused.Op)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
	requireRefused()

	for range 2 {
		listener, err := network.Listen("server")
		require.NoError(t, err)
		_, err = network.Listen("server")
		require.ErrorIs(t, err, syscall.EADDRINUSE)

		network.Refuse("client", "", true)
		requireRefused()
		network.Refuse("client", "", false)

		go func() { _, _ = listener.Accept() }()

		conn, err := dial(t.Context(), "tcp", "server:80")
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		require.Zero(t, network.Open("", ""))
		require.NoError(t, listener.Close())
		requireRefused()
	}
}
