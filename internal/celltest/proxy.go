package celltest

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Proxy stands before a replica, as a load balancer does. It is net/http's.
type Proxy struct {
	// HTTP1 makes it speak HTTP/1.1 alone to those who call it.
	HTTP1 bool
	// Buffer makes it read the whole of a call before it passes it on.
	Buffer bool
	// Cut is after how long it cuts whatever is still open (0: never).
	Cut time.Duration
	// Limit is the largest call that it takes, in bytes (0: any).
	Limit int64
	// Route chooses the replica that a call goes to. Nil: the one that it is before.
	Route func(r *http.Request) string
	// Called is called with each call. May be nil.
	Called func(r *http.Request)
	// Answered is called with each answer to a call, before the caller gets it.
	// False cuts the caller's connection instead. May be nil.
	Answered func(r *http.Request) bool
}

// Proxy puts a proxy under a name before a replica.
func (c *Cell) Proxy(t testing.TB, name, replica string, p Proxy) {
	t.Helper()

	listener, err := c.Network.Listen(name)
	require.NoError(t, err)

	back := c.Network.Transport(name)
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			host := replica
			if p.Route != nil {
				host = p.Route(r.In)
			}

			r.SetURL(&url.URL{Scheme: "http", Host: host})
		},
		Transport:     back,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		ModifyResponse: func(r *http.Response) error {
			if p.Answered != nil && !p.Answered(r.Request) {
				return http.ErrAbortHandler
			}

			return nil
		},
		// The caller's connection ends with what went wrong behind.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.Called != nil {
			p.Called(r)
		}

		if p.Limit > 0 && r.ContentLength > p.Limit {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)

			return
		}

		if p.Cut > 0 {
			control, end := http.NewResponseController(w), time.Now().Add(p.Cut)
			if err := errors.Join(control.SetReadDeadline(end), control.SetWriteDeadline(end)); err != nil {
				t.Errorf("proxy %s: %v", name, err)
			}
		}

		if p.Buffer {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler) // the caller gave up
			}

			r.Body = io.NopCloser(bytes.NewReader(body))
		}

		forward.ServeHTTP(w, r)
	})

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(!p.HTTP1)
	server := &http.Server{Handler: handler, Protocols: protocols, ReadHeaderTimeout: time.Minute}

	running(t, func() { _ = server.Close() }, func() { _ = server.Serve(listener) })
	t.Cleanup(back.CloseIdleConnections)
}
