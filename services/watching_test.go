package services

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBounded: who watches and doesn't read is given up; who reads is told of
// what comes late.
func TestBounded(t *testing.T) {
	t.Parallel()
	const timeout = 50 * time.Millisecond
	for _, http2 := range []bool{false, true} {
		ended := make(chan error, 1)
		server := httptest.NewUnstartedServer(bounded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			flusher, ok := w.(http.Flusher)
			if !ok {
				ended <- http.ErrNotSupported

				return
			}
			flusher.Flush()
			if r.URL.Path == "/late" {
				<-time.After(3 * timeout)
				_, err := io.WriteString(w, "late")
				ended <- err

				return
			}
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					ended <- err

					return
				}
				flusher.Flush()
			}
		}), timeout, "/late", "/deaf"))
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2)
		server.Config.Protocols = protocols
		server.Start()
		client := &http.Client{Transport: &http.Transport{Protocols: protocols, DialContext: (&net.Dialer{}).DialContext}}

		response, err := client.Get(server.URL + "/late")
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Equal(t, "late", string(body))
		require.NoError(t, response.Body.Close())
		require.NoError(t, <-ended)

		response, err = client.Get(server.URL + "/deaf")
		require.NoError(t, err)
		select {
		case err := <-ended:
			require.Error(t, err)
		case <-time.After(time.Minute):
			require.Fail(t, "the handler waits for its client")
		}
		require.NoError(t, response.Body.Close())
		client.CloseIdleConnections()
		server.Close()
	}
}
