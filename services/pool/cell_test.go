package pool_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
	"github.com/tcoder-dev/tcoder/services/interceptor"
	"github.com/tcoder-dev/tcoder/services/pool"
	"github.com/tcoder-dev/tcoder/services/publish"
)

// patience is how long a test waits for what has to happen.
const (
	patience = 15 * time.Second
	// promptly is sooner than anything that comes by a clock, heartbeats first, and leaves time for a loaded machine.
	promptly = 4 * time.Second
)

func TestMain(m *testing.M) { s3test.Main(redistest.Wrap(m)) }

// cell is a Redis and a pair of buckets, without a control plane.
type cell struct {
	store   *redisstore.Store
	in, out *s3.Store
}

func newCell(t *testing.T) *cell {
	t.Helper()
	url, tag := redistest.New(t)
	return newCellOn(t, url, tag)
}

func newCellOn(t *testing.T, url, tag string) *cell {
	t.Helper()
	store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	bucket := func() *s3.Store {
		b, err := s3.New(s3test.New(t))
		require.NoError(t, err)
		t.Cleanup(b.Close)
		return b
	}
	return &cell{store: store, in: bucket(), out: bucket()}
}

// replica is one control plane's pool service on a loopback port.
type replica struct {
	svc       *pool.Service
	url       string
	transport *http.Transport
	drain     func() // begins a graceful stop
	ended     <-chan struct{}
}

type option func(*pool.Config, *pool.Deps)

func (c *cell) replica(t *testing.T, options ...option) *replica {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg := pool.Config{Retry: pipeline.DefaultRetryPolicy(), Provider: "none", Limits: media.Limits{MaxDuration: time.Hour}}
	deps := pool.Deps{Store: c.store, In: c.in, Out: c.out, Publish: publish.New(c.store, c.out, log).Publish, Log: log}
	for _, o := range options {
		o(&cfg, &deps)
	}
	svc := pool.New(cfg, deps)
	chain, err := interceptor.New(interceptor.Config{Logger: log})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle(svc.Handler(chain.Options(4 << 20)...))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	transport := &http.Transport{Protocols: server.Config.Protocols}

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = svc.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		transport.CloseIdleConnections()
		server.Close()
	})
	return &replica{svc: svc, url: server.URL, transport: transport, drain: cancel, ended: ended}
}

func (r *replica) api() tcoderv1connect.PoolServiceClient {
	return tcoderv1connect.NewPoolServiceClient(&http.Client{Transport: r.transport}, r.url)
}

// submit puts a job into the queue whose source is text in the input bucket.
func (c *cell) submit(t *testing.T) pipeline.Job {
	t.Helper()
	return c.submitSpec(t, media.Spec{Preset: "hls"})
}

func (c *cell) submitSpec(t *testing.T, spec media.Spec) pipeline.Job {
	t.Helper()
	id := ulid.Make().String()
	key := "in/" + pipeline.DefaultProject + "/" + id + "/source"
	require.NoError(t, c.in.Put(t.Context(), key, strings.NewReader("source of "+id), objectstore.PutOptions{}))
	job, err := c.store.CreateJob(t.Context(), pipeline.Job{
		ID: id, Project: pipeline.DefaultProject, Spec: spec,
		Source: pipeline.Source{ObjectKey: key, SizeBytes: int64(len("source of " + id)), ETag: "etag"},
	}, pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	return job
}

func (c *cell) job(t *testing.T, id string) pipeline.Job {
	t.Helper()
	job, err := c.store.GetJob(t.Context(), id)
	require.NoError(t, err)
	return job
}

// worker is a scripted worker: it does nothing by itself.
type worker struct {
	t      *testing.T
	id     string
	stream *connect.BidiStreamForClientSimple[tcoderv1.AttachRequest, tcoderv1.AttachResponse]
	in     chan *tcoderv1.AttachResponse
	kept   []*tcoderv1.AttachResponse // came, and wasn't asked for yet
	err    error                      // of the stream, once in is closed
	cut    func()                     // breaks its connection
}

// attach attaches a worker and returns it with its welcome.
func (r *replica) attach(t *testing.T, hello *tcoderv1.Hello) (*worker, *tcoderv1.Welcome) {
	t.Helper()
	w := r.connect(t, hello)
	return w, expect(w, (*tcoderv1.AttachResponse).GetWelcome)
}

func (r *replica) connect(t *testing.T, hello *tcoderv1.Hello) *worker {
	t.Helper()
	if hello.GetWorkerId() == "" {
		hello.WorkerId = ulid.Make().String()
	}
	if hello.GetSlots() == 0 {
		hello.Slots = 1
	}
	var mu sync.Mutex
	var conns []net.Conn // the transport may open one to spare
	transport := r.transport.Clone()
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, conn)
		return conn, err
	}
	cut := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	api := tcoderv1connect.NewPoolServiceClient(&http.Client{Transport: transport}, r.url)
	stream, err := api.Attach(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	w := &worker{
		t: t, id: hello.GetWorkerId(), stream: stream, in: make(chan *tcoderv1.AttachResponse, 1000),
		cut: cut,
	}
	// If the server refuses, that shows in what it answers.
	_ = stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{Hello: hello}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(w.in)
		for {
			m, err := stream.Receive()
			if err != nil {
				w.err = err
				return
			}
			w.in <- m
		}
	}()
	t.Cleanup(func() {
		w.cut()
		<-done
	})
	return w
}

func (w *worker) send(m *tcoderv1.AttachRequest) {
	w.t.Helper()
	require.NoError(w.t, w.stream.Send(m))
}

// expect waits for a message of the kind that get returns, and keeps the
// others for later.
func expect[M comparable](w *worker, get func(*tcoderv1.AttachResponse) M) M {
	w.t.Helper()
	var none M
	for i, m := range w.kept {
		if got := get(m); got != none {
			w.kept = slices.Delete(w.kept, i, i+1)
			return got
		}
	}
	deadline := time.After(patience)
	for {
		select {
		case m, ok := <-w.in:
			if !ok {
				require.Failf(w.t, "the stream ended", "waiting for %T: %v", none, w.err)
			}
			if got := get(m); got != none {
				return got
			}
			w.kept = append(w.kept, m)
		case <-deadline:
			require.Failf(w.t, "nothing came", "waiting for %T", none)
		}
	}
}

func (w *worker) assignment() *tcoderv1.Assignment {
	w.t.Helper()
	return expect(w, (*tcoderv1.AttachResponse).GetAssignment)
}

// quiet requires that a kind of message doesn't come before the answer to a
// heartbeat: answers keep their order.
func quiet[M comparable](w *worker, get func(*tcoderv1.AttachResponse) M) {
	w.t.Helper()
	w.heartbeat()
	var none M
	expect(w, func(m *tcoderv1.AttachResponse) *tcoderv1.HeartbeatAck {
		require.Equal(w.t, none, get(m))
		return m.GetHeartbeat()
	})
}

// ends waits for the end of the stream.
func (w *worker) ends() error {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-w.in:
			if !ok {
				return w.err
			}
		case <-deadline:
			require.Fail(w.t, "the stream goes on")
		}
	}
}

func (w *worker) heartbeat(running ...*tcoderv1.LeaseRef) {
	w.t.Helper()
	h := &tcoderv1.Heartbeat{}
	for _, ref := range running {
		h.Running = append(h.Running, &tcoderv1.TaskProgress{Lease: ref, Fraction: 0.5, MediaTime: durationpb.New(time.Second)})
	}
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: h}})
}

func (w *worker) report(r *tcoderv1.TaskReport) tcoderv1.ReportVerdict {
	w.t.Helper()
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Report{Report: r}})
	ack := expect(w, (*tcoderv1.AttachResponse).GetReport)
	require.Equal(w.t, r.GetLease().GetTaskId(), ack.GetLease().GetTaskId())
	return ack.GetVerdict()
}

// probed reports what a small clip's probe finds.
func probed(ref *tcoderv1.LeaseRef) *tcoderv1.TaskReport {
	return &tcoderv1.TaskReport{Lease: ref, End: &tcoderv1.TaskReport_Probe{Probe: &tcoderv1.ProbeResult{
		Format: "mov,mp4,m4a,3gp,3g2,mj2", Duration: durationpb.New(10 * time.Second), SizeBytes: 1000,
		Streams: []*tcoderv1.StreamInfo{{
			Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, Codec: "vp9", Width: 640, Height: 360, PixelFormat: "yuv420p",
			FrameRate: &tcoderv1.Rational{Num: 25, Den: 1}, NominalFrameRate: &tcoderv1.Rational{Num: 25, Den: 1},
			Duration: durationpb.New(10 * time.Second),
		}},
	}}}
}

func failed(ref *tcoderv1.LeaseRef, class tcoderv1.FaultClass, reason tcoderv1.ErrorReason) *tcoderv1.TaskReport {
	return &tcoderv1.TaskReport{Lease: ref, End: &tcoderv1.TaskReport_Fault{Fault: &tcoderv1.Fault{
		Class: class, Failure: &tcoderv1.Failure{Reason: reason, Message: "It failed."},
	}}}
}

// encode makes what an encode assignment asks for: three segments of nothing
// much per rendition.
func (w *worker) encode(a *tcoderv1.Assignment) (*tcoderv1.TaskReport, map[string][]byte) {
	work := a.GetEncode()
	files := map[string][]byte{}
	object := func(name, mime string, d time.Duration) *tcoderv1.EncodedObject {
		files[name] = []byte(name)
		o := &tcoderv1.EncodedObject{Name: name, SizeBytes: uint64(len(name)), ContentType: mime}
		if d > 0 {
			o.Duration = durationpb.New(d)
		}
		return o
	}
	result := &tcoderv1.EncodeResult{}
	third := work.GetDuration().AsDuration() / 3
	for _, r := range work.GetOutput().GetVideo().GetRenditions() {
		result.Renditions = append(result.Renditions, &tcoderv1.EncodedRendition{
			Result: &tcoderv1.RenditionResult{
				Name: r.GetName(), Codecs: "avc1.64001f", Width: r.GetWidth(), Height: r.GetHeight(),
				FrameRate: work.GetOutput().GetVideo().GetFrameRate(), Duration: work.GetDuration(),
				SizeBytes: 100, AverageBitrateBps: 80, PeakBitrateBps: 100, FrameCount: 250,
			},
			InitSegment: object(r.GetName()+"/init.mp4", "video/mp4", 0),
			Segments: []*tcoderv1.EncodedObject{
				object(r.GetName()+"/00000.m4s", "video/iso.segment", third),
				object(r.GetName()+"/00001.m4s", "video/iso.segment", third),
				object(r.GetName()+"/00002.m4s", "video/iso.segment", third),
			},
		})
	}
	return &tcoderv1.TaskReport{Lease: a.GetLease(), End: &tcoderv1.TaskReport_Encode{Encode: result}}, files
}

func (w *worker) sign(ref *tcoderv1.LeaseRef, objects ...*tcoderv1.EncodedObject) *tcoderv1.SignResponse {
	w.t.Helper()
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Sign{
		Sign: &tcoderv1.SignRequest{RequestId: 7, Lease: ref, Objects: objects},
	}})
	answer := expect(w, (*tcoderv1.AttachResponse).GetSign)
	require.EqualValues(w.t, 7, answer.GetRequestId())
	return answer
}

// upload writes the objects of a report by URLs it asks for.
func (w *worker) upload(r *tcoderv1.TaskReport, files map[string][]byte) {
	w.t.Helper()
	var objects []*tcoderv1.EncodedObject
	for _, e := range r.GetEncode().GetRenditions() {
		objects = append(append(objects, e.GetInitSegment()), e.GetSegments()...)
	}
	answer := w.sign(r.GetLease(), objects...)
	require.Nil(w.t, answer.GetRefused())
	require.Len(w.t, answer.GetRequests(), len(objects))
	for i, o := range objects {
		require.Equal(w.t, http.StatusOK, put(w.t, answer.GetRequests()[i], files[o.GetName()]))
	}
}

func put(t *testing.T, signed *tcoderv1.SignedRequest, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), signed.GetMethod(), signed.GetUrl(), bytes.NewReader(body))
	require.NoError(t, err)
	for name, value := range signed.GetHeaders() {
		req.Header.Set(name, value)
	}
	return do(t, req)
}

func do(t *testing.T, req *http.Request) int {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Do(req)
	require.NoError(t, err)
	defer res.Body.Close() //nolint:errcheck // a test
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	return res.StatusCode
}
