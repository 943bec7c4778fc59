package autoscale

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// metrics are the leader's; a follower's don't move.
type metrics struct {
	actions  *prometheus.CounterVec
	errors   *prometheus.CounterVec
	machines *prometheus.GaugeVec
	desired  prometheus.Gauge
	waiting  prometheus.Gauge
	start    prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tcoder_pool_actions_total", Help: "Actions of the autoscaler.",
		}, []string{"action", "result"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tcoder_provider_errors_total", Help: "Failed calls of the machine provider by class.",
		}, []string{"call", "class"}),
		machines: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tcoder_machines", Help: "Machines of the pool by state, as the leader sees them.",
		}, []string{"state"}),
		desired: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tcoder_machines_desired", Help: "Machines that the work asks for, at most the limit.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tcoder_waiting_work_seconds", Help: "Estimate of the work that waits, in seconds of one slot.",
		}),
		start: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tcoder_machine_start_seconds", Help: "Time from asking for a machine until its worker attached.",
			Buckets: prometheus.ExponentialBuckets(0.1, 2, 12),
		}),
	}
}

// Collector returns the autoscaler's metrics, for a registry.
func (r *Reconciler) Collector() prometheus.Collector { return r.metrics }

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.actions, m.errors, m.machines, m.desired, m.waiting, m.start}
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(descs)
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(out)
	}
}

func (m *metrics) acted(kind Kind, err error) {
	result := "done"
	if err != nil {
		result = "failed"
	}
	m.actions.WithLabelValues(strings.ToLower(string(kind)), result).Inc()
}

func (m *metrics) failed(call string, class machine.Class) {
	m.errors.WithLabelValues(call, strings.ToLower(string(class))).Inc()
}

func (m *metrics) came(took time.Duration) { m.start.Observe(took.Seconds()) }

func (m *metrics) saw(s Snapshot, report pipeline.PoolReport) {
	m.machines.Reset()
	for _, one := range s.Machines {
		m.machines.WithLabelValues(strings.ToLower(string(one.State))).Inc()
	}
	m.desired.Set(float64(report.Desired))
	m.waiting.Set(report.WaitingWork.Seconds())
}
