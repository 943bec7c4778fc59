package services_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/services"
)

// A client that doesn't send what it began is given up, whoever it is.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	p := start(t, options{server: services.Config{BodyTimeout: 100 * time.Millisecond}})
	for _, path := range []string{"/grpc.health.v1.Health/Check", "/tcoder.v1.JobService/GetJob"} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "http://"))
		require.NoError(t, err)
		_, err = conn.Write([]byte("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"))
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		answer := make([]byte, 100)
		n, err := conn.Read(answer)
		require.NoError(t, err)
		require.Contains(t, string(answer[:n]), "HTTP/1.1 504", path)
		require.NoError(t, conn.Close())
	}
}
