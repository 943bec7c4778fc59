package services_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
	"github.com/tcoder-dev/tcoder/services"
	"github.com/tcoder-dev/tcoder/services/job"
	"github.com/tcoder-dev/tcoder/services/pool"
	"github.com/tcoder-dev/tcoder/services/upload"
)

const (
	// patience is how long a test waits for what has to happen.
	patience = 15 * time.Second
	tick     = 5 * time.Millisecond
	lease    = 20 * time.Second
)

func TestMain(m *testing.M) { s3test.Main(redistest.Wrap(m)) }

// options are what a test may ask of its control plane.
type options struct {
	server services.Config
	upload upload.Config
	job    job.Config
	redis  string // URL of a Redis of the test's own
	loops  []services.Loop
	wrap   func(tcoderv1connect.JobServiceHandler) tcoderv1connect.JobServiceHandler
}

// plane is a control plane on real stores, served over HTTP.
type plane struct {
	t       *testing.T
	url     string
	addr    string
	store   *redisstore.Store
	in      *recordedBucket
	out     *s3.Store
	uploads *upload.Service
	log     *lockedBuffer
	h2      *http.Client
	h1      *http.Client
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // of Run, once done is closed

	upload tcoderv1connect.UploadServiceClient
	job    tcoderv1connect.JobServiceClient
	pool   tcoderv1connect.PoolServiceClient
}

// start runs a control plane until the end of the test, or stop.
func start(t *testing.T, o options) *plane {
	t.Helper()
	p := &plane{t: t, log: &lockedBuffer{}, done: make(chan struct{})}
	log := slog.New(slog.NewJSONHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	url, tag := o.redis, "{tcoder}"
	if url == "" {
		url, tag = redistest.New(t)
	}
	var err error
	p.store, err = redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.store.Close()) })
	p.in, p.out = &recordedBucket{Store: bucket(t)}, bucket(t)

	p.uploads = upload.New(o.upload, upload.Deps{Store: p.store, In: p.in, Log: log})
	var jobs tcoderv1connect.JobServiceHandler = job.New(o.job, job.Deps{
		Store: p.store, In: p.in, Out: p.out, SettleUpload: p.uploads.Settle, Log: log,
	})
	if o.wrap != nil {
		jobs = o.wrap(jobs)
	}
	workers := pool.New(pool.Config{Lease: lease, Retry: pipeline.DefaultRetryPolicy()}, pool.Deps{
		Store: p.store, In: p.in, Out: p.out, Log: log,
		Publish: func(context.Context, string) error { return nil },
	})
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, err := services.New(o.server, services.Deps{
		Uploads: p.uploads, Jobs: jobs, Pool: workers, Loops: append([]services.Loop{workers}, o.loops...),
		Ready: p.store.Ping, Listener: listener, Log: log,
	})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p.cancel = cancel
	go func() {
		defer close(p.done)
		p.err = server.Run(ctx)
	}()
	t.Cleanup(func() { require.NoError(t, p.stop()) })
	<-server.Serving()
	p.addr = server.Addr().String()
	p.url = "http://" + p.addr

	h1, h2 := &http.Transport{}, &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h1.CloseIdleConnections)
	t.Cleanup(h2.CloseIdleConnections)
	p.h1, p.h2 = &http.Client{Transport: h1}, &http.Client{Transport: h2}
	p.connect()

	return p
}

// connect makes the plane's clients anew, with options.
func (p *plane) connect(opts ...connect.ClientOption) {
	p.upload = tcoderv1connect.NewUploadServiceClient(p.h2, p.url, opts...)
	p.job = tcoderv1connect.NewJobServiceClient(p.h2, p.url, opts...)
	p.pool = tcoderv1connect.NewPoolServiceClient(p.h2, p.url, opts...)
}

// stop stops the server and returns what Run did.
func (p *plane) stop() error {
	p.cancel()
	<-p.done

	return p.err
}

func bucket(t *testing.T) *s3.Store {
	t.Helper()
	b, err := s3.New(s3test.New(t))
	require.NoError(t, err)
	t.Cleanup(b.Close)

	return b
}

// recordedBucket remembers the multipart uploads that were begun.
type recordedBucket struct {
	*s3.Store

	mu    sync.Mutex
	begun [][2]string // key, upload id
}

func (b *recordedBucket) CreateMultipart(ctx context.Context, key string, opts objectstore.MultipartOptions) (string, error) {
	id, err := b.Store.CreateMultipart(ctx, key, opts)
	if err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.begun = append(b.begun, [2]string{key, id})
	}

	return id, err
}

// alive returns how many of the multipart uploads that were begun are there.
func (b *recordedBucket) alive(t *testing.T) int {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, u := range b.begun {
		_, err := b.ListParts(t.Context(), u[0], u[1])
		if err == nil {
			n++
		} else {
			require.ErrorIs(t, err, objectstore.ErrUploadNotFound)
		}
	}

	return n
}

// put stores an object in the input bucket.
func (p *plane) put(key string, bytesOf int) {
	p.t.Helper()
	require.NoError(p.t, p.in.Put(p.t.Context(), key, bytes.NewReader(make([]byte, bytesOf)), objectstore.PutOptions{}))
}

// send sends a signed request with a body and returns the status and the ETag.
func (p *plane) send(r *tcoderv1.SignedRequest, body []byte) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), r.GetMethod(), r.GetUrl(), bytes.NewReader(body))
	require.NoError(p.t, err)
	for k, v := range r.GetHeaders() {
		req.Header.Set(k, v)
	}
	res, err := p.h1.Do(req)
	require.NoError(p.t, err)
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(p.t, err)
	require.NoError(p.t, res.Body.Close())

	return res.StatusCode, strings.Trim(res.Header.Get("ETag"), `"`)
}

// newJob starts a job on an object of its own.
func (p *plane) newJob() *tcoderv1.Job {
	p.t.Helper()
	key := "films/" + ulid.Make().String() + ".mp4"
	p.put(key, 10)
	res, err := p.job.CreateJob(p.t.Context(), &tcoderv1.CreateJobRequest{ObjectKey: key})
	require.NoError(p.t, err)

	return res.GetJob()
}

// claim leases the next ready task to a worker of its own.
func (p *plane) claim() (worker string, l pipeline.Lease) {
	p.t.Helper()
	ctx := p.t.Context()
	worker = ulid.Make().String()
	session, _, err := p.store.AttachWorker(ctx, pipeline.Worker{ID: worker, Slots: 1}, lease)
	require.NoError(p.t, err)
	claimed, err := p.store.ClaimTasks(ctx, pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: worker, Session: session, Max: 1, Lease: lease,
	})
	require.NoError(p.t, err)
	require.Len(p.t, claimed.Leases, 1)

	return worker, claimed.Leases[0]
}

// planned takes a pending job through its probe: an encode task is ready.
func (p *plane) planned() {
	p.t.Helper()
	worker, l := p.claim()
	verdict, _, err := p.store.FinishTask(p.t.Context(), pipeline.TaskResult{
		Ref: l.Ref, WorkerID: worker, Probe: &media.Probe{Format: "mov"},
		Plan:  &media.Plan{Outputs: []media.OutputPlan{{Name: "mp4", Kind: media.KindMP4}}, Duration: 10 * time.Second},
		Tasks: []pipeline.NewTask{{Kind: pipeline.KindEncode, Output: "mp4", Weight: 1}},
	})
	require.NoError(p.t, err)
	require.Equal(p.t, pipeline.VerdictAccepted, verdict)
}

// finish ends the lease of a job's encode and publishes outputs.
func (p *plane) finish(worker string, l pipeline.Lease, outputs ...media.Output) {
	p.t.Helper()
	_, last, err := p.store.FinishTask(p.t.Context(), pipeline.TaskResult{Ref: l.Ref, WorkerID: worker, Result: &media.EncodeResult{}})
	require.NoError(p.t, err)
	require.True(p.t, last)
	ok, err := p.store.CompleteJob(p.t.Context(), l.Job.ID, l.Job.Run, outputs)
	require.NoError(p.t, err)
	require.True(p.t, ok)
}

// refused requires an error with a code, a reason and a remedy or nothing to
// do, and returns its detail.
func refused(t *testing.T, err error, code connect.Code, reason tcoderv1.ErrorReason) *tcoderv1.ErrorDetail {
	t.Helper()
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	require.Len(t, coded.Details(), 1, "%v", err)
	v, err := coded.Details()[0].Value()
	require.NoError(t, err)
	detail, ok := v.(*tcoderv1.ErrorDetail)
	require.True(t, ok)
	require.Equal(t, reason, detail.GetReason(), "%v", coded)
	require.Equal(t, code, coded.Code(), "%v", coded)
	require.NotEmpty(t, coded.Message())

	return detail
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
