package tcoder_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// hurried is a retry policy for tests: everything is tried again at once.
func hurried() tcoder.RetryPolicy {
	return tcoder.RetryPolicy{
		FirstDelay: time.Millisecond, MaxDelay: 5 * time.Millisecond,
		Patience: 10 * time.Second, FirstPatience: 10 * time.Second,
	}
}

// server is a scripted tcoder server with an object store beside it. Each
// function answers one RPC; the ones that a test leaves unset are unimplemented.
type server struct {
	tcoderv1connect.UnimplementedUploadServiceHandler
	tcoderv1connect.UnimplementedJobServiceHandler
	tcoderv1connect.UnimplementedPoolServiceHandler

	url   string
	store *store

	createUpload   func(*tcoderv1.CreateUploadRequest) (*tcoderv1.CreateUploadResponse, error)
	signParts      func(*tcoderv1.SignUploadPartsRequest) (*tcoderv1.SignUploadPartsResponse, error)
	getUpload      func(*tcoderv1.GetUploadRequest) (*tcoderv1.GetUploadResponse, error)
	completeUpload func(*tcoderv1.CompleteUploadRequest) (*tcoderv1.CompleteUploadResponse, error)
	createJob      func(*tcoderv1.CreateJobRequest) (*tcoderv1.CreateJobResponse, error)
	getJob         func(*tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error)
	listJobs       func(*tcoderv1.ListJobsRequest) (*tcoderv1.ListJobsResponse, error)
	watchJob       func(context.Context, *tcoderv1.WatchJobRequest, *connect.ServerStream[tcoderv1.WatchJobResponse]) error
	retryJob       func(*tcoderv1.RetryJobRequest) (*tcoderv1.RetryJobResponse, error)
	deleteJob      func(*tcoderv1.DeleteJobRequest) (*tcoderv1.DeleteJobResponse, error)
	listObjects    func(*tcoderv1.ListOutputObjectsRequest) (*tcoderv1.ListOutputObjectsResponse, error)
	onCall         func(http.Header)
}

// newServer starts a server and its object store, and returns a client of it.
func newServer(t *testing.T, opts ...tcoder.Option) (*server, *tcoder.Client) {
	t.Helper()
	s := &server{store: newStore(t)}
	mux := http.NewServeMux()
	mux.Handle(tcoderv1connect.NewUploadServiceHandler(s))
	mux.Handle(tcoderv1connect.NewJobServiceHandler(s))
	mux.Handle(tcoderv1connect.NewPoolServiceHandler(s))
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.onCall != nil {
			s.onCall(r.Header)
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(listener.Close)
	s.url = listener.URL
	client, err := tcoder.New(s.url, append([]tcoder.Option{tcoder.WithRetry(hurried())}, opts...)...)
	require.NoError(t, err)

	return s, client
}

func answer[Req, Res any](fn func(*Req) (*Res, error), req *Req) (*Res, error) {
	if fn == nil {
		return nil, connect.NewError(connect.CodeUnimplemented, nil)
	}

	return fn(req)
}

func (s *server) CreateUpload(_ context.Context, r *tcoderv1.CreateUploadRequest) (*tcoderv1.CreateUploadResponse, error) {
	return answer(s.createUpload, r)
}

func (s *server) SignUploadParts(_ context.Context, r *tcoderv1.SignUploadPartsRequest) (*tcoderv1.SignUploadPartsResponse, error) {
	return answer(s.signParts, r)
}

func (s *server) GetUpload(_ context.Context, r *tcoderv1.GetUploadRequest) (*tcoderv1.GetUploadResponse, error) {
	return answer(s.getUpload, r)
}

func (s *server) CompleteUpload(_ context.Context, r *tcoderv1.CompleteUploadRequest) (*tcoderv1.CompleteUploadResponse, error) {
	return answer(s.completeUpload, r)
}

func (s *server) CreateJob(_ context.Context, r *tcoderv1.CreateJobRequest) (*tcoderv1.CreateJobResponse, error) {
	return answer(s.createJob, r)
}

func (s *server) GetJob(_ context.Context, r *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
	return answer(s.getJob, r)
}

func (s *server) ListJobs(_ context.Context, r *tcoderv1.ListJobsRequest) (*tcoderv1.ListJobsResponse, error) {
	return answer(s.listJobs, r)
}

func (s *server) WatchJob(ctx context.Context, r *tcoderv1.WatchJobRequest, stream *connect.ServerStream[tcoderv1.WatchJobResponse]) error {
	return s.watchJob(ctx, r, stream)
}

func (s *server) RetryJob(_ context.Context, r *tcoderv1.RetryJobRequest) (*tcoderv1.RetryJobResponse, error) {
	return answer(s.retryJob, r)
}

func (s *server) DeleteJob(_ context.Context, r *tcoderv1.DeleteJobRequest) (*tcoderv1.DeleteJobResponse, error) {
	return answer(s.deleteJob, r)
}

func (s *server) ListOutputObjects(_ context.Context, r *tcoderv1.ListOutputObjectsRequest) (*tcoderv1.ListOutputObjectsResponse, error) {
	return answer(s.listObjects, r)
}

// refuse is an error as the server sends it.
func refuse(t *testing.T, code connect.Code, d *tcoderv1.ErrorDetail) error {
	t.Helper()
	err := connect.NewError(code, fmt.Errorf("because of %s", tcoder.ReasonName(d.GetReason())))
	detail, detailErr := connect.NewErrorDetail(d)
	require.NoError(t, detailErr)
	err.AddDetail(detail)

	return err
}

func unavailable(t *testing.T) error {
	t.Helper()

	return refuse(t, connect.CodeUnavailable, &tcoderv1.ErrorDetail{
		Reason:     tcoderv1.ErrorReason_ERROR_REASON_STATE_UNAVAILABLE,
		RetryAfter: durationpb.New(time.Millisecond),
	})
}

// store is an object store that takes requests of the form /key?token=n and
// serves only tokens that were signed and not expired.
type store struct {
	url string

	mu       sync.Mutex
	objects  map[string][]byte
	tokens   int
	expired  map[string]bool
	requests []string // method and key
	headers  []http.Header
	// intercept may answer a request in the store's place; true if it did.
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{objects: map[string][]byte{}, expired: map[string]bool{}}
	listener := httptest.NewServer(s)
	t.Cleanup(listener.Close)
	s.url = listener.URL

	return s
}

// sign makes a request that is valid for an hour.
func (s *store) sign(method, key string) *tcoderv1.SignedRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens++

	return &tcoderv1.SignedRequest{
		Method: method, Url: s.url + "/" + key + "?token=" + strconv.Itoa(s.tokens),
		Headers: map[string]string{"Content-Type": "video/mp4"}, ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}
}

// expire makes the store refuse a signed request although its time isn't over.
func (s *store) expire(r *tcoderv1.SignedRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, token, _ := strings.Cut(r.GetUrl(), "token=")
	s.expired[token] = true
}

func (s *store) object(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.objects[key]
}

func (s *store) put(key string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = body
}

func (s *store) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return append([]string(nil), s.requests...)
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/")
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+key)
	s.headers = append(s.headers, r.Header.Clone())
	expired := s.expired[r.URL.Query().Get("token")]
	intercept := s.intercept
	s.mu.Unlock()
	if expired {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>`)

		return
	}
	if intercept != nil && intercept(w, r) {
		return
	}
	if r.Method == http.MethodGet {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.object(key)))

		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || int64(len(body)) != r.ContentLength || r.Header.Get("Content-Type") != "video/mp4" {
		w.WriteHeader(http.StatusBadRequest)

		return
	}
	s.put(key, body)
	w.Header().Set("ETag", `"`+etagOf(body)+`"`)
}

func etagOf(body []byte) string {
	sum := md5.Sum(body)

	return hex.EncodeToString(sum[:])
}
