package services

import (
	"net/http"
	"time"
)

// watchWriteTimeout is how long a message may wait for a client that watches.
const watchWriteTimeout = 30 * time.Second

// bounded gives up clients that watch and don't read: each holds a subscription,
// and the order to stop would wait for it. No other call waits for its reader.
func bounded(next http.Handler, timeout time.Duration, procedures ...string) http.Handler {
	watches := map[string]bool{}
	for _, procedure := range procedures {
		watches[procedure] = true
	}

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if watches[r.URL.Path] {
			w = boundedWriter{w, http.NewResponseController(w), timeout}
		}
		next.ServeHTTP(w, r)
	})
}

// boundedWriter bounds each write. Between writes there is no deadline: one that
// passes ends the stream.
type boundedWriter struct {
	http.ResponseWriter

	control *http.ResponseController
	timeout time.Duration
}

func (w boundedWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err //nolint:wrapcheck // net/http's own
	}
	n, err := w.ResponseWriter.Write(p)
	if err == nil {
		err = w.control.SetWriteDeadline(time.Time{})
	}

	return n, err //nolint:wrapcheck // net/http's own
}

// Flush writes what is buffered, which is where a client that doesn't read is
// waited for.
func (w boundedWriter) Flush() {
	if w.control.SetWriteDeadline(time.Now().Add(w.timeout)) == nil && w.control.Flush() == nil {
		_ = w.control.SetWriteDeadline(time.Time{})
	}
}

// Unwrap lets a ResponseController find what is below.
func (w boundedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
