package fly

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	mostAnswerBytes  = 64 << 20 // a list of thousands of machines
	mostRefusalBytes = 64 << 10
	mostMessageBytes = 400
)

// transport sends each request once, to our address. (Go itself repeats a read
// whose connection turned out to be closed.)
//
// The library repeats whatever is answered 502 or 503, or fails by an error
// that calls itself temporary, up to three times and whatever the method: a
// create that took effect before its answer was lost would be sent again. So
// every answer that isn't a success leaves here as an error that is not
// temporary, and so does every error.
type transport struct {
	next http.RoundTripper
	base *url.URL
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	// The library reads its address from a variable of the whole process.
	sent := req.Clone(req.Context())
	sent.URL.Scheme, sent.URL.Host, sent.Host = t.base.Scheme, t.base.Host, t.base.Host
	sent.URL.Path = t.base.Path + sent.URL.Path
	resp, err := t.next.RoundTrip(sent)
	if err != nil {
		return nil, &cutError{err}
	}
	if resp.StatusCode >= http.StatusOK && resp.StatusCode < http.StatusMultipleChoices {
		resp.Body = &boundedBody{Reader: io.LimitReader(resp.Body, mostAnswerBytes), Closer: resp.Body}
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostRefusalBytes))
	if err != nil {
		body = nil // the status says enough
	}
	return nil, newAnswerError(resp, body)
}

type boundedBody struct {
	io.Reader
	io.Closer
}

// cutError is a request without an answer. It hides whether its cause calls
// itself temporary.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// answerError is an answer that isn't a success.
type answerError struct {
	status     int
	message    string // of its body
	code       string // "status" of its body
	requestID  string
	retryAfter time.Duration
}

func newAnswerError(resp *http.Response, body []byte) *answerError {
	var parsed struct {
		Error  string `json:"error"`
		Status string `json:"status"`
	}
	message := string(body)
	if json.Unmarshal(body, &parsed) == nil && parsed.Error != "" {
		message = parsed.Error
	}
	a := &answerError{
		status: resp.StatusCode, message: shorten(message), code: parsed.Status, requestID: resp.Header.Get("Fly-Request-Id"),
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		a.retryAfter = time.Duration(seconds) * time.Second
	}
	return a
}

func (e *answerError) Error() string {
	return fmt.Sprintf("status %d, request %s: %s", e.status, e.requestID, e.message)
}

// shorten bounds text of others and makes it one printable line.
func shorten(text string) string {
	runes := make([]rune, 0, mostMessageBytes)
	for _, r := range text {
		if len(runes) == mostMessageBytes {
			return string(runes) + "..."
		}
		if r < ' ' || r == 0x7f {
			r = ' '
		}
		runes = append(runes, r)
	}
	return string(runes)
}

// cause takes the library's and the http client's words off an error: they
// name the address, which helps nobody.
func cause(err error) error {
	if refused, ok := errors.AsType[*answerError](err); ok {
		return refused
	}
	if cut, ok := errors.AsType[*cutError](err); ok {
		return cut.err
	}
	return err
}
