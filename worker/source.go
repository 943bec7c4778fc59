package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// content is bytes of the store, of known length.
type content interface {
	size() int64
	// read hands out bytes [from, to) in order.
	read(ctx context.Context, from, to int64, emit func([]byte) error) error
	// transferError returns why a reader did not get, or is not getting, its bytes.
	transferError() error
}

// source serves contents of the store on a loopback address, for FFmpeg to
// read: FFmpeg itself never sees a signed URL, and never talks to anything but
// this process. The path is a secret of the task. Broken and expired transfers
// are taken up again behind FFmpeg's back; what can't be mended is remembered
// for transferError.
type source struct {
	contents map[string]content // by path
	base     string             // of the URLs
	server   *http.Server
	serving  sync.WaitGroup // the accept loop and the handlers

	mu     sync.Mutex
	closed bool
}

// openSource starts serving contents by their names. The caller closes it.
func openSource(ctx context.Context, contents map[string]content, log *slog.Logger) (*source, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for FFmpeg: %w", err)
	}

	secret := "/" + rand.Text() + "/"

	s := &source{contents: map[string]content{}, base: "http://" + listener.Addr().String() + secret}
	for name, c := range contents {
		s.contents[secret+name] = c
	}

	s.server = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}

	s.serving.Go(func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving the source to FFmpeg ended", "error", err)
		}
	})

	return s, nil
}

// url is where a content is.
func (s *source) url(name string) string { return s.base + name }

// transferError returns what kept FFmpeg from reading the true bytes.
func (s *source) transferError() error {
	for _, c := range s.contents {
		if err := c.transferError(); err != nil {
			return err
		}
	}

	return nil
}

// close ends all transfers and returns when they have ended.
func (s *source) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()

	_ = s.server.Close() // it can only complain about a listener that is closed already
	s.serving.Wait()
}

// enter counts a handler in, unless close has begun.
func (s *source) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.closed {
		return false
	}

	s.serving.Add(1)

	return true
}

func (s *source) serve(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.serving.Done()

	content, found := s.contents[r.URL.Path]
	if !found {
		http.NotFound(w, r)

		return
	}

	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)

		return
	}

	size := content.size()

	from, to, status := parseRange(r.Header.Get("Range"), size)

	header := w.Header()
	header.Set("Accept-Ranges", "bytes")
	header.Set("Content-Type", "application/octet-stream")

	if status == http.StatusRequestedRangeNotSatisfiable {
		header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		w.WriteHeader(status)

		return
	}

	header.Set("Content-Length", strconv.FormatInt(to-from, 10))

	if status == http.StatusPartialContent {
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
	}

	if r.Method == http.MethodHead || from == to {
		w.WriteHeader(status)

		return
	}

	stream(w, r, content, from, to, status)
}

// stream sends bytes [from, to). The status waits for the first of them, so
// that a source that can't be read at all is an HTTP error to FFmpeg.
func stream(w http.ResponseWriter, r *http.Request, c content, from, to int64, status int) {
	started := false

	err := c.read(r.Context(), from, to, func(block []byte) error {
		if !started {
			w.WriteHeader(status)

			started = true
		}

		_, err := w.Write(block)

		return err
	})
	if err == nil {
		return
	}

	if started {
		panic(http.ErrAbortHandler) // the only way to end a body early that the reader can notice
	}

	header := w.Header()
	header.Del("Content-Length")
	header.Del("Content-Range")
	http.Error(w, "the source can't be read", http.StatusBadGateway)
}

// parseRange understands the one form of Range that media programs send, and
// ignores others, as HTTP allows. It returns the bytes [from, to) and the
// status to answer with.
func parseRange(value string, size int64) (from, to int64, status int) {
	first, last, isRange := strings.Cut(strings.TrimPrefix(value, "bytes="), "-")
	if !strings.HasPrefix(value, "bytes=") || !isRange || strings.Contains(last, ",") {
		return 0, size, http.StatusOK
	}

	if first == "" { // the last n bytes
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return 0, size, http.StatusOK
		}

		if n == 0 || size == 0 {
			return 0, 0, http.StatusRequestedRangeNotSatisfiable
		}

		return max(0, size-n), size, http.StatusPartialContent
	}

	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, size, http.StatusOK
	}

	to = size

	if last != "" {
		end, err := strconv.ParseInt(last, 10, 64)
		if err != nil || end < from {
			return 0, size, http.StatusOK
		}

		if end < size {
			to = end + 1
		}
	}

	if from >= size {
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	}

	return from, to, http.StatusPartialContent
}
