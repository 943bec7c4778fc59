package interceptor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
)

// metrics counts calls.
type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tcoder_rpc_calls_total", Help: "Calls that ended, by procedure and Connect code.",
		}, []string{"procedure", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tcoder_rpc_duration_seconds", Help: "Duration of unary calls.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"procedure"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tcoder_rpc_streams_open", Help: "Streams that are open now.",
		}, []string{"procedure"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.calls, m.duration, m.streams} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}

	return m, nil
}

// observer logs and counts every call once, when it ends.
type observer struct {
	log     *slog.Logger
	metrics *metrics
}

// WrapUnary implements connect.Interceptor.
func (o *observer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		start := time.Now()
		res, err := next(ctx, req)
		ids := idsOf(req.Any())
		if err == nil {
			ids = append(ids, idsOf(res.Any())...)
		}
		o.observe(ctx, req.Spec(), start, ids, err)
		o.metrics.duration.WithLabelValues(req.Spec().Procedure).Observe(time.Since(start).Seconds())

		return res, err
	}
}

// WrapStreamingClient implements connect.Interceptor; the chain is for servers.
func (o *observer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (o *observer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		start := time.Now()
		open := o.metrics.streams.WithLabelValues(conn.Spec().Procedure)
		open.Inc()
		defer open.Dec()
		observed := &observedConn{StreamingHandlerConn: conn}
		err := next(ctx, observed)
		o.observe(ctx, conn.Spec(), start, observed.firstIDs(), err)

		return err
	}
}

func (o *observer) observe(ctx context.Context, spec connect.Spec, start time.Time, ids []slog.Attr, err error) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	o.metrics.calls.WithLabelValues(spec.Procedure, code).Inc()
	level := slog.LevelInfo
	if err == nil && (spec.IdempotencyLevel == connect.IdempotencyNoSideEffects || strings.HasPrefix(spec.Procedure, "/grpc.") ||
		spec.Procedure == tcoderv1connect.PoolServiceSyncProcedure) { // a worker makes one after the other
		level = slog.LevelDebug
	}
	attrs := append([]slog.Attr{
		slog.String("procedure", spec.Procedure),
		slog.String("code", code),
		slog.Duration("duration", time.Since(start)),
		slog.String("request_id", RequestID(ctx)),
		slog.String("project", Project(ctx)),
	}, ids...)
	if reason := reasonOf(err); reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	o.log.LogAttrs(ctx, level, "call", attrs...)
}

// observedConn remembers which ids the first message of a stream names.
type observedConn struct {
	connect.StreamingHandlerConn

	mu   sync.Mutex // Receive may be called by another goroutine than the handler's own
	seen bool
	ids  []slog.Attr
}

func (c *observedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen {
		c.seen, c.ids = true, idsOf(message)
	}

	return nil
}

func (c *observedConn) firstIDs() []slog.Attr {
	c.mu.Lock()
	defer c.mu.Unlock()

	return c.ids
}

// idsOf returns the ids that a message names, for the log.
func idsOf(message any) []slog.Attr {
	var ids []slog.Attr
	add := func(key, id string) {
		if id != "" {
			ids = append(ids, slog.String(key, id))
		}
	}
	if m, ok := message.(interface{ GetJobId() string }); ok {
		add("job_id", m.GetJobId())
	}
	if m, ok := message.(interface{ GetUploadId() string }); ok {
		add("upload_id", m.GetUploadId())
	}
	if m, ok := message.(interface{ GetWorkerId() string }); ok {
		add("worker_id", m.GetWorkerId())
	}
	switch m := message.(type) {
	case *tcoderv1.AttachRequest:
		add("worker_id", m.GetHello().GetWorkerId())
		add("machine_id", m.GetHello().GetMachineId())
	case *tcoderv1.SyncRequest:
		add("worker_id", m.GetHello().GetWorkerId())
		add("machine_id", m.GetHello().GetMachineId())
	case *tcoderv1.CreateUploadResponse:
		add("upload_id", m.GetUpload().GetId())
		add("job_id", m.GetUpload().GetJobId())
	case *tcoderv1.CompleteUploadResponse:
		add("job_id", m.GetUpload().GetJobId())
	case *tcoderv1.AbortUploadResponse:
		add("job_id", m.GetUpload().GetJobId())
	case *tcoderv1.CreateJobResponse:
		add("job_id", m.GetJob().GetId())
	}

	return ids
}

// reasonOf returns the reason that an error tells its caller.
func reasonOf(err error) string {
	var coded *connect.Error
	if !errors.As(err, &coded) {
		return ""
	}
	for _, d := range coded.Details() {
		if v, err := d.Value(); err == nil {
			if detail, ok := v.(*tcoderv1.ErrorDetail); ok {
				return strings.TrimPrefix(detail.GetReason().String(), "ERROR_REASON_")
			}
		}
	}

	return ""
}
