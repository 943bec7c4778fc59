package worker

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// secret stands for a signature: no log may hold it.
const secret = "X-Amz-Signature"

// store is an object store that knows presigned requests: a URL is good while
// its signature is, a PUT only with the size and type that were signed.
type store struct {
	*httptest.Server

	mu      sync.Mutex
	objects map[string][]byte
	signed  map[string]*tcoderv1.EncodedObject // what a signature allows to be written; nil: to read
	etags   map[string]string
	types   map[string]string // Content-Type of what was written
	// before may answer a request, or break it, instead of the store.
	before func(w http.ResponseWriter, r *http.Request) (handled bool)
	gets   []string // Range of each GET that was answered
	puts   []string // path of each PUT that was accepted
}

func newStore(t *testing.T) *store {
	t.Helper()

	s := &store{
		objects: map[string][]byte{}, signed: map[string]*tcoderv1.EncodedObject{},
		etags: map[string]string{}, types: map[string]string{},
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)

	return s
}

// client is one that ends with the test.
func (s *store) client(t *testing.T) *http.Client {
	t.Helper()

	client := newStoreClient()
	t.Cleanup(client.CloseIdleConnections)

	return client
}

func (s *store) put(path string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.objects[path] = content
	s.etags[path] = fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(content)))
}

func (s *store) get(path string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	content, ok := s.objects[path]

	return content, ok
}

func (s *store) etagOf(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.etags[path]
}

func (s *store) typeOf(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.types[path]
}

// interfere sets what happens before each request.
func (s *store) interfere(before func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.before = before
}

// fall cuts every connection from now on. The port stays the store's: that of a
// server which was closed may be another test's a moment later.
func (s *store) fall() {
	s.interfere(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
}

func (s *store) ranges() []string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return append([]string(nil), s.gets...)
}

func (s *store) written() []string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return append([]string(nil), s.puts...)
}

// signGet makes a request to read an object.
func (s *store) signGet(path string) *tcoderv1.SignedRequest {
	return s.sign(http.MethodGet, path, nil)
}

// signPut makes a request to write exactly this object.
func (s *store) signPut(path string, object *tcoderv1.EncodedObject) *tcoderv1.SignedRequest {
	return s.sign(http.MethodPut, path, object)
}

func (s *store) sign(method, path string, object *tcoderv1.EncodedObject) *tcoderv1.SignedRequest {
	s.mu.Lock()
	defer s.mu.Unlock()

	signature := fmt.Sprintf("%016x", rand.Uint64())
	s.signed[method+path+signature] = object

	request := &tcoderv1.SignedRequest{
		Method:    method,
		Url:       s.URL + path + "?" + secret + "=" + signature,
		ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}
	if object.GetContentType() != "" {
		request.Headers = map[string]string{"Content-Type": object.GetContentType()}
	}

	return request
}

// expire ends every signature that was made.
func (s *store) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()

	clear(s.signed)
}

func (s *store) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()

	if before != nil && before(w, r) {
		return
	}

	s.mu.Lock()
	object, valid := s.signed[r.Method+r.URL.Path+r.URL.Query().Get(secret)]
	content, exists := s.objects[r.URL.Path]
	etag := s.etags[r.URL.Path]
	s.mu.Unlock()

	switch {
	case !valid:
		http.Error(w, "AccessDenied", http.StatusForbidden)
	case r.Method == http.MethodPut:
		s.accept(w, r, object)
	case !exists:
		http.Error(w, "NoSuchKey", http.StatusNotFound)
	default:
		s.mu.Lock()
		s.gets = append(s.gets, r.Header.Get("Range"))
		s.mu.Unlock()
		w.Header().Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

func (s *store) accept(w http.ResponseWriter, r *http.Request, object *tcoderv1.EncodedObject) {
	if r.ContentLength != int64(object.GetSizeBytes()) || r.Header.Get("Content-Type") != object.GetContentType() ||
		len(r.TransferEncoding) > 0 {
		http.Error(w, "SignatureDoesNotMatch", http.StatusForbidden)

		return
	}

	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	s.put(r.URL.Path, content)
	s.mu.Lock()
	s.puts = append(s.puts, r.URL.Path)
	s.types[r.URL.Path] = r.Header.Get("Content-Type")
	s.mu.Unlock()
	w.Header().Set("ETag", s.etagOf(r.URL.Path))
}

// testPacing makes failures quick.
func testPacing() transferPacing {
	return transferPacing{
		firstPause: time.Millisecond, maxPause: 20 * time.Millisecond,
		stall: 300 * time.Millisecond, patience: 600 * time.Millisecond,
	}
}

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func newJournal() (*journal, *slog.Logger) {
	j := &journal{}

	return j, slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write appends to the log.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()

	return j.text.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()

	return j.text.String()
}
