package pool

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// statsAge is how old counts of the store may be when they are scraped.
	statsAge     = 5 * time.Second
	statsTimeout = 2 * time.Second
)

// metrics are the pool's. What a replica does is counted by it; what the
// deployment has is read from the store, the same on every replica.
type metrics struct {
	svc         *Service
	assignments *prometheus.CounterVec
	reports     *prometheus.CounterVec
	dispatch    prometheus.Histogram
	wait        prometheus.Histogram
	sessions    *prometheus.Desc
	tasks       *prometheus.Desc
	oldest      *prometheus.Desc

	mu     sync.Mutex
	stats  pipeline.PoolStats
	readAt time.Time
}

func newMetrics(svc *Service) *metrics {
	return &metrics{
		svc: svc,
		assignments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tcoder_assignments_total", Help: "Tasks sent to workers.",
		}, []string{"kind"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tcoder_reports_total", Help: "Reports of workers that were settled.",
		}, []string{"report", "verdict"}),
		dispatch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tcoder_dispatch_seconds", Help: "Time from asking for tasks to sending them.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tcoder_queue_wait_seconds", Help: "Time from when a job was queued until its first task was sent.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 12),
		}),
		sessions: prometheus.NewDesc("tcoder_worker_sessions", "Streams of workers on this replica.", nil, nil),
		tasks:    prometheus.NewDesc("tcoder_tasks", "Tasks of the deployment by state.", []string{"state"}, nil),
		oldest:   prometheus.NewDesc("tcoder_oldest_ready_seconds", "Age of the oldest ready task.", nil, nil),
	}
}

// Collector returns the pool's metrics, for a registry.
func (s *Service) Collector() prometheus.Collector { return s.metrics }

func (m *metrics) assigned(l *lease) {
	m.assignments.WithLabelValues(strings.ToLower(string(l.task.Kind))).Inc()
	if l.task.Kind == pipeline.KindProbe && l.ref.Attempt == 1 && !l.job.Times.Queued.IsZero() {
		m.wait.Observe(max(0, time.Since(l.job.Times.Queued).Seconds()))
	}
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.assignments, m.reports, m.dispatch, m.wait} {
		c.Describe(descs)
	}
	descs <- m.sessions
	descs <- m.tasks
	descs <- m.oldest
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.assignments, m.reports, m.dispatch, m.wait} {
		c.Collect(out)
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(m.sessions, float64(len(m.svc.current())))
	stats, ok := m.read()
	if !ok {
		return // no numbers are better than old ones
	}
	gauge(m.tasks, float64(stats.ReadyTasks), "ready")
	gauge(m.tasks, float64(stats.LeasedTasks), "leased")
	gauge(m.tasks, float64(stats.DelayedTasks), "delayed")
	gauge(m.tasks, float64(stats.LimitedTasks), "limited")
	gauge(m.oldest, stats.OldestReady.Seconds())
}

// read returns the store's counts, at most statsAge old.
func (m *metrics) read() (pipeline.PoolStats, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.readAt) < statsAge {
		return m.stats, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	stats, err := m.svc.deps.Store.PoolStats(ctx)
	if err != nil {
		return pipeline.PoolStats{}, false
	}
	m.stats, m.readAt = stats, time.Now()
	return stats, true
}

// reportName is a report's kind as a label.
func reportName(r *tcoderv1.TaskReport) string {
	switch r.GetEnd().(type) {
	case *tcoderv1.TaskReport_Probe:
		return "probe"
	case *tcoderv1.TaskReport_Encode:
		return "encode"
	case *tcoderv1.TaskReport_Fault:
		return "fault"
	case *tcoderv1.TaskReport_Released:
		return "released"
	default:
		return "none"
	}
}

func verdictName(v tcoderv1.ReportVerdict) string {
	return strings.ToLower(strings.TrimPrefix(v.String(), "REPORT_VERDICT_"))
}
