package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// scripted is a server whose only job ends as the test says.
type scripted struct {
	tcoderv1connect.UnimplementedUploadServiceHandler
	tcoderv1connect.UnimplementedJobServiceHandler
	tcoderv1connect.UnimplementedPoolServiceHandler

	url    string
	end    *tcoderv1.Job // nil: the job runs until it is canceled
	hang   chan struct{} // closed when a watch of a job that runs has begun
	refuse error         // of CreateUpload
	list   func(*tcoderv1.ListJobsRequest) *tcoderv1.ListJobsResponse
	retry  func(*tcoderv1.RetryJobRequest) (*tcoderv1.Job, error)

	mu       sync.Mutex
	asked    *tcoderv1.CreateUploadRequest
	stored   []byte
	canceled bool
	keys     []string // Authorization headers
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	s := &scripted{hang: make(chan struct{}), end: &tcoderv1.Job{
		Id: "j", State: tcoderv1.JobState_JOB_STATE_COMPLETED,
		Outputs: []*tcoderv1.Output{{Name: "mp4", Entry: "720p.mp4"}},
	}}
	mux := http.NewServeMux()
	mux.Handle(tcoderv1connect.NewUploadServiceHandler(s))
	mux.Handle(tcoderv1connect.NewJobServiceHandler(s))
	mux.Handle(tcoderv1connect.NewPoolServiceHandler(s))
	mux.HandleFunc("PUT /object", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stored = body
	})
	mux.HandleFunc("GET /object", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, _ = w.Write(s.stored)
	})
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.keys = append(s.keys, r.Header.Get("Authorization"))
		s.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(listener.Close)
	s.url = listener.URL

	return s
}

func (s *scripted) CreateUpload(_ context.Context, r *tcoderv1.CreateUploadRequest) (*tcoderv1.CreateUploadResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = r
	if s.refuse != nil {
		return nil, s.refuse
	}

	return &tcoderv1.CreateUploadResponse{
		Upload: &tcoderv1.Upload{Id: "u", JobId: "j", State: tcoderv1.UploadState_UPLOAD_STATE_OPEN},
		Put:    &tcoderv1.SignedRequest{Method: http.MethodPut, Url: s.url + "/object"},
	}, nil
}

func (s *scripted) CompleteUpload(context.Context, *tcoderv1.CompleteUploadRequest) (*tcoderv1.CompleteUploadResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	return &tcoderv1.CompleteUploadResponse{
		Upload: &tcoderv1.Upload{Id: "u", JobId: "j", SizeBytes: uint64(len(s.stored))}, Job: &tcoderv1.Job{Id: "j", Sequence: 2},
	}, nil
}

func (s *scripted) WatchJob(ctx context.Context, _ *tcoderv1.WatchJobRequest, stream *connect.ServerStream[tcoderv1.WatchJobResponse]) error {
	if s.end != nil {
		return stream.Send(&tcoderv1.WatchJobResponse{Job: s.end})
	}
	if err := stream.Send(&tcoderv1.WatchJobResponse{Job: &tcoderv1.Job{
		Id: "j", State: tcoderv1.JobState_JOB_STATE_RUNNING, Progress: &tcoderv1.Progress{Percent: 42, Speed: 2, Fps: 48},
	}}); err != nil {
		return err
	}
	close(s.hang)
	<-ctx.Done()

	return ctx.Err()
}

func (s *scripted) CancelJob(context.Context, *tcoderv1.CancelJobRequest) (*tcoderv1.CancelJobResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.canceled = true

	return &tcoderv1.CancelJobResponse{Job: &tcoderv1.Job{
		Id: "j", State: tcoderv1.JobState_JOB_STATE_CANCELED,
		Failure: &tcoderv1.Failure{Reason: tcoderv1.ErrorReason_ERROR_REASON_CANCELED, Message: "canceled"},
	}}, nil
}

func (s *scripted) GetJob(_ context.Context, r *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
	if r.GetJobId() != "j" {
		err := connect.NewError(connect.CodeNotFound, io.EOF)
		detail, detailErr := connect.NewErrorDetail(&tcoderv1.ErrorDetail{Reason: tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND, Remedy: "look at the list"})
		if detailErr != nil {
			return nil, detailErr
		}
		err.AddDetail(detail)

		return nil, err
	}

	return &tcoderv1.GetJobResponse{Job: s.end}, nil
}

func (s *scripted) RetryJob(_ context.Context, r *tcoderv1.RetryJobRequest) (*tcoderv1.RetryJobResponse, error) {
	job, err := s.retry(r)
	if err != nil {
		return nil, err
	}

	return &tcoderv1.RetryJobResponse{Job: job}, nil
}

func (s *scripted) ListJobs(_ context.Context, r *tcoderv1.ListJobsRequest) (*tcoderv1.ListJobsResponse, error) {
	if s.list != nil {
		return s.list(r), nil
	}

	return &tcoderv1.ListJobsResponse{Jobs: []*tcoderv1.Job{{Id: "b"}, {Id: "a"}}}, nil
}

func (s *scripted) ListOutputObjects(context.Context, *tcoderv1.ListOutputObjectsRequest) (*tcoderv1.ListOutputObjectsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	return &tcoderv1.ListOutputObjectsResponse{Objects: []*tcoderv1.ReadableObject{{
		Output: "mp4", Url: s.url + "/object",
		Object: &tcoderv1.OutputObject{Name: "720p.mp4", Key: "k", SizeBytes: uint64(len(s.stored))},
	}}}, nil
}

func (s *scripted) ListPresets(context.Context, *tcoderv1.ListPresetsRequest) (*tcoderv1.ListPresetsResponse, error) {
	return &tcoderv1.ListPresetsResponse{Presets: []*tcoderv1.Preset{{Name: "hls", Description: "One rendition."}}}, nil
}

// session is one run of the program.
type session struct {
	stdin   io.Reader
	env     map[string]string
	signals chan chan<- os.Signal // the program's subscriptions

	stdout, stderr bytes.Buffer
}

func newSession(env map[string]string) *session {
	return &session{stdin: strings.NewReader(""), env: env, signals: make(chan chan<- os.Signal, 8)}
}

// run runs a command line and returns the exit code.
func (s *session) run(t *testing.T, args ...string) int {
	t.Helper()

	return run(t.Context(), &cli.Program{
		Stdin: s.stdin, Stdout: &s.stdout, Stderr: &s.stderr,
		LookupEnv:  func(name string) (string, bool) { value, ok := s.env[name]; return value, ok },
		Notify:     func(c chan<- os.Signal) { s.signals <- c },
		StopNotify: func(chan<- os.Signal) {},
	}, args)
}

// closedAddress is where nothing listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	listener := httptest.NewServer(http.NotFoundHandler())
	listener.Close()

	return listener.URL
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := t.TempDir() + "/" + name
	require.NoError(t, os.WriteFile(path, content, 0o600))

	return path
}
