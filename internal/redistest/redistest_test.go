package redistest_test

import (
	"bufio"
	"context"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.Main(m)
}

// Tests share a server and never a tag, whatever their names.
func TestNew(t *testing.T) {
	t.Parallel()
	url1, tag1 := redistest.New(t)
	url2, tag2 := redistest.New(t)
	require.Equal(t, url1, url2)
	require.NotEqual(t, tag1, tag2)
	require.Equal(t, "+PONG", ask(t, url1, "PING"))
	t.Run("odd name: {a} b/ü", func(t *testing.T) {
		t.Parallel()
		_, tag := redistest.New(t)
		require.Regexp(t, `^\{tcoder-[A-Za-z0-9-]+-[0-9]+\}$`, tag)
	})
}

// A killed server is gone until it is started again, with every acknowledged
// write, at the same address; other servers don't notice.
func TestKill(t *testing.T) {
	t.Parallel()
	shared, _ := redistest.New(t)
	server := redistest.Start(t, redistest.Options{FsyncAlways: true})
	address := server.URL()
	require.NotEqual(t, shared, address)
	for range 3 {
		ask(t, address, "INCR counter")
		server.Kill()
		_, err := dial(t.Context(), address)
		require.Error(t, err)
		require.Equal(t, "+PONG", ask(t, shared, "PING"))
		server.Restart()
		require.Equal(t, address, server.URL())
	}
	require.Equal(t, ":4", ask(t, address, "INCR counter"))
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, u.Scheme, u.Path)
}

func ask(t *testing.T, address, command string) string {
	t.Helper()
	conn, err := dial(t.Context(), address)
	require.NoError(t, err)
	_, err = conn.Write([]byte(command + "\r\n"))
	require.NoError(t, err)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	return strings.TrimSpace(answer)
}
