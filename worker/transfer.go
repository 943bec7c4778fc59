package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

var errStalled = errors.New("nothing moved on the connection")

// statusError is an answer of the store that isn't success.
type statusError int

// Error tells the status.
func (e statusError) Error() string {
	return fmt.Sprintf("the store answered %d %s", int(e), http.StatusText(int(e)))
}

// refused tells whether a status may mean that a signed request has expired;
// some stores say 400.
func refused(status int) bool {
	return status == http.StatusForbidden || status == http.StatusUnauthorized || status == http.StatusBadRequest
}

// passing tells whether a status may be gone on the next try.
func passing(status int) bool {
	return status >= http.StatusInternalServerError ||
		status == http.StatusTooManyRequests || status == http.StatusRequestTimeout ||
		status == http.StatusConflict // two writes met
}

// newStoreClient returns a client for presigned requests. It follows no
// redirect, so it talks to no host but the one that was signed for, and speaks
// HTTP/1.1, where transfers don't share one connection's window.
func newStoreClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)

	return &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: time.Minute,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   16,
			DisableCompression:    true, // a range of a compressed body is no range of the object
			Protocols:             protocols,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// setHeaders sends what was signed. The host and the length have their own
// places in a request.
func setHeaders(request *http.Request, headers map[string]string) {
	for name, value := range headers {
		switch {
		case strings.EqualFold(name, "Host"):
			request.Host = value
		case strings.EqualFold(name, "Content-Length"):
		default:
			request.Header.Set(name, value)
		}
	}
}

// stallOr prefers the watchdog's word over the error that it caused.
func stallOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}

	return err
}

// jitter returns a duration between half of d and d.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, guards nothing
}

// waitFor returns after d, or earlier when something has happened; false means
// that ctx has ended.
func waitFor(ctx context.Context, happened <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-ctx.Done():
		return false
	case <-happened:
	case <-timer.C:
	}

	return true
}
