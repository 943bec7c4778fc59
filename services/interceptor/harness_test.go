package interceptor_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/services/interceptor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// jobs and pool are handlers that do what a test says.
type jobs struct {
	tcoderv1connect.UnimplementedJobServiceHandler

	get   func(ctx context.Context, req *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error)
	watch func(ctx context.Context, req *tcoderv1.WatchJobRequest, s *connect.ServerStream[tcoderv1.WatchJobResponse]) error
}

func (j *jobs) GetJob(ctx context.Context, req *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
	return j.get(ctx, req)
}

func (j *jobs) WatchJob(
	ctx context.Context, req *tcoderv1.WatchJobRequest, s *connect.ServerStream[tcoderv1.WatchJobResponse],
) error {
	return j.watch(ctx, req, s)
}

type pool struct {
	tcoderv1connect.UnimplementedPoolServiceHandler

	attach func(ctx context.Context, s *connect.BidiStream[tcoderv1.AttachRequest, tcoderv1.AttachResponse]) error
}

func (p *pool) Attach(ctx context.Context, s *connect.BidiStream[tcoderv1.AttachRequest, tcoderv1.AttachResponse]) error {
	return p.attach(ctx, s)
}

// bench is a server with the chain in front of handlers that a test writes.
type bench struct {
	url      string
	client   *http.Client // h2c
	jobs     *jobs
	pool     *pool
	log      *lockedBuffer
	registry *prometheus.Registry
	job      tcoderv1connect.JobServiceClient
	workers  tcoderv1connect.PoolServiceClient
}

func setup(t *testing.T, cfg interceptor.Config, opts ...connect.ClientOption) *bench {
	t.Helper()
	b := &bench{log: &lockedBuffer{}, registry: prometheus.NewRegistry()}
	b.jobs = &jobs{
		get: func(_ context.Context, req *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
			return &tcoderv1.GetJobResponse{Job: &tcoderv1.Job{Id: req.GetJobId()}}, nil
		},
		watch: func(context.Context, *tcoderv1.WatchJobRequest, *connect.ServerStream[tcoderv1.WatchJobResponse]) error {
			return nil
		},
	}
	b.pool = &pool{attach: func(context.Context, *connect.BidiStream[tcoderv1.AttachRequest, tcoderv1.AttachResponse]) error {
		return nil
	}}
	cfg.Logger = slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Registerer = b.registry
	chain, err := interceptor.New(cfg)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle(tcoderv1connect.NewJobServiceHandler(b.jobs, chain.Options(1<<20)...))
	mux.Handle(tcoderv1connect.NewPoolServiceHandler(b.pool, chain.Options(1<<20)...))
	// A procedure that nobody has put into the table of access.
	mux.Handle("/tcoder.v1.JobService/Secret", connect.NewUnaryHandlerSimple("/tcoder.v1.JobService/Secret",
		func(context.Context, *tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
			return &tcoderv1.GetJobResponse{}, nil
		}, chain.Options(1<<20)...))

	server := httptest.NewUnstartedServer(interceptor.WithRequestID(mux))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	b.url, b.client = server.URL, &http.Client{Transport: transport}
	b.job = tcoderv1connect.NewJobServiceClient(b.client, b.url, opts...)
	b.workers = tcoderv1connect.NewPoolServiceClient(b.client, b.url, opts...)

	return b
}

// detailOf returns the code and the one ErrorDetail of an error.
func detailOf(t *testing.T, err error) (connect.Code, *tcoderv1.ErrorDetail) {
	t.Helper()
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	require.Len(t, coded.Details(), 1, "%v", err)
	v, err := coded.Details()[0].Value()
	require.NoError(t, err)
	detail, ok := v.(*tcoderv1.ErrorDetail)
	require.True(t, ok)

	return coded.Code(), detail
}

// watchError opens a watch and returns how it ended.
func watchError(ctx context.Context, b *bench, req *tcoderv1.WatchJobRequest) error {
	stream, err := b.job.WatchJob(ctx, req)
	if err != nil {
		return err
	}
	for stream.Receive() {
	}

	return errors.Join(stream.Err(), stream.Close())
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.buf.String()
}

const (
	waitLong = 10 * time.Second
	waitTick = 5 * time.Millisecond
)
