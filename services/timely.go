package services

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
)

// timely gives up clients that don't send what they began: a call is read before
// anything of the chain bounds it, and before it is known who calls. Of some
// procedures, which others bound, bodies may come as they like.
func timely(next http.Handler, timeout time.Duration, except ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(except, r.URL.Path) {
			r.Body = &timelyBody{ReadCloser: r.Body, control: http.NewResponseController(w), timeout: timeout}
		}
		next.ServeHTTP(w, r)
	})
}

// timelyBody has a deadline from the first read to the end. After that there is
// none: net/http goes on reading to see that the client is there. Once it has
// passed it stays, for whoever discards what is left.
type timelyBody struct {
	io.ReadCloser

	control *http.ResponseController
	timeout time.Duration
	begun   bool
}

func (b *timelyBody) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		if err := b.control.SetReadDeadline(time.Now().Add(b.timeout)); err != nil {
			return 0, err //nolint:wrapcheck // net/http's own
		}
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{}) // it fails if the connection has ended
	}

	return n, err //nolint:wrapcheck // io.EOF must stay itself
}
