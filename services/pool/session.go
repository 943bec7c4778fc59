package pool

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// outboundMessages is how many messages may wait for a worker to read.
	outboundMessages = 128
	// reportsAtOnce is how many reports, of segments too, and steps of uploads of a
	// worker are worked on at a time.
	reportsAtOnce = 64
	// doubtFor is how long a worker is doubted that completes nothing since.
	doubtFor = time.Minute
)

// lease is what a session remembers of a lease. Guarded by session.mu but for
// what never changes (ref, task and job), pieces and uploads.
type lease struct {
	ref       pipeline.LeaseRef
	task      pipeline.Task
	job       pipeline.Job
	since     time.Time              // when the worker was given it, or said that it holds it
	started   time.Time              // of the attempt
	signedAt  time.Time              // of the source's URL
	renewal   pipeline.Renewal       // the last progress
	signed    int64                  // bytes that were signed for writing
	reporting bool                   // its report is worked on
	pieces    atomic.Pointer[pieces] // of an assemble task, once they were asked for
	uploads   atomic.Bool            // a report of its segments is worked on
}

// session is one stream of one worker, or its calls that stand for one.
type session struct {
	worker pipeline.Worker
	number int64 // of the attach, by the store
	log    *slog.Logger
	out    chan *tcoderv1.AttachResponse
	ended  chan struct{} // closed once; cause says why
	turns  chan struct{} // bounds the reports that are worked on
	asked  asked
	calls  *calls // of a worker that makes calls; nil for a stream

	mu          sync.Mutex
	cause       error
	over        bool
	leases      map[pipeline.LeaseRef]*lease
	reports     int  // that are worked on
	claiming    bool // a claim for it is in flight
	draining    bool // it takes nothing more
	drainSent   bool
	leaving     bool // it was told that it may exit
	lastRenewal time.Time
	watched     bool          // somebody watches one of its jobs
	idleAfter   time.Duration // the threshold that it was told
	doubtUntil  time.Time
	missingFrom time.Time // when it was first missing in the store; zero: it isn't
}

func newSession(w pipeline.Worker, number int64, log *slog.Logger) *session {
	return &session{
		worker:   w,
		number:   number,
		log:      log.With("worker_id", w.ID, "session", number),
		out:      make(chan *tcoderv1.AttachResponse, outboundMessages),
		ended:    make(chan struct{}),
		turns:    make(chan struct{}, reportsAtOnce),
		leases:   map[pipeline.LeaseRef]*lease{},
		draining: w.Draining,
	}
}

func (s *session) setWatched(watched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = watched
}

// toldIdle notes the idle threshold that the worker is told.
func (s *session) toldIdle(threshold time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idleAfter = threshold
}

// newIdle returns the threshold that the worker is to be told, if it is one of
// ours and the threshold has changed.
func (s *session) newIdle(threshold time.Duration) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.worker.MachineID == "" || s.idleAfter == threshold {
		return 0, false
	}
	s.idleAfter = threshold
	return threshold, true
}

// end ends the session, the first time it is called.
func (s *session) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(cause)
}

func (s *session) endLocked(cause error) {
	if s.over {
		return
	}
	s.over, s.cause = true, cause
	close(s.ended)
}

// send queues a message, unless the session is over.
func (s *session) send(m *tcoderv1.AttachResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(m)
}

// sendLocked says whether the message was queued. A worker that doesn't read
// is cut: it attaches again and is told the whole state.
func (s *session) sendLocked(m *tcoderv1.AttachResponse) bool {
	if s.over {
		return false
	}
	select {
	case s.out <- m:
		return true
	default:
		s.endLocked(errSlowWorker)
		return false
	}
}

// offer queues an assignment and remembers its lease; false if the session is over.
func (s *session) offer(l *lease, m *tcoderv1.AttachResponse) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sendLocked(m) {
		return false
	}
	if len(s.leases) == 0 {
		s.lastRenewal = l.since // the claim was one, of all that it holds
	}
	s.leases[l.ref] = l
	return true
}

// free is how many slots can be filled, and whether that can be now: not
// while a claim for it is in flight.
func (s *session) free() (slots int, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.draining || s.leaving {
		return 0, false
	}
	return max(0, s.worker.Slots-len(s.leases)), !s.claiming
}

func (s *session) setClaiming(claiming bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claiming = claiming
}

// lease returns what is remembered of a lease, nil if the worker doesn't hold it.
func (s *session) lease(ref pipeline.LeaseRef) *lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[ref]
}

// drop forgets a lease that is lost; false if there is nothing to say about
// it: it is forgotten already, or its report is about to be answered.
func (s *session) drop(ref pipeline.LeaseRef) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.leases[ref]
	if !ok || l.reporting {
		return false
	}
	delete(s.leases, ref)
	return true
}

// startReport marks a lease's report as worked on; false if it is already.
func (s *session) startReport(ref pipeline.LeaseRef) (*lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[ref]
	if l != nil && l.reporting {
		return nil, false
	}
	if l != nil {
		l.reporting = true
	}
	s.reports++
	return l, true
}

// judge learns of a worker from how an attempt ended: it is doubted when the
// attempt failed and the input isn't known to be why, until another comes off.
func (s *session) judge(r *tcoderv1.TaskReport, verdict tcoderv1.ReportVerdict) {
	failed := verdict == tcoderv1.ReportVerdict_REPORT_VERDICT_REJECTED
	if !failed && verdict != tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED {
		return
	}
	switch end := r.GetEnd().(type) {
	case *tcoderv1.TaskReport_Released:
		return
	case *tcoderv1.TaskReport_Fault:
		if end.Fault.GetClass() == tcoderv1.FaultClass_FAULT_CLASS_INPUT {
			return
		}
		failed = true
	}
	if failed {
		s.doubt()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtUntil = time.Time{}
}

// doubt has others asked first, for a while.
func (s *session) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtUntil = time.Now().Add(doubtFor)
}

// missing notes whether the worker is missing in the store, and returns for how
// long it has been.
func (s *session) missing(is bool, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !is:
		s.missingFrom = time.Time{}
		return 0
	case s.missingFrom.IsZero():
		s.missingFrom = now
	}
	return now.Sub(s.missingFrom)
}

// doubted tells whether others are to be asked first.
func (s *session) doubted(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.doubtUntil)
}

// endReport ends what startReport began; the lease is over if it was settled.
func (s *session) endReport(ref pipeline.LeaseRef, settled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports--
	if l := s.leases[ref]; l != nil {
		l.reporting = false
		if settled {
			delete(s.leases, ref)
		}
	}
}

// held returns the leases that could be found lost.
func (s *session) held() []pipeline.LeaseRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	refs := make([]pipeline.LeaseRef, 0, len(s.leases))
	for ref := range s.leases {
		refs = append(refs, ref)
	}
	return refs
}

// drain marks the session as taking nothing more, and tells the worker once.
func (s *session) drain(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if s.drainSent || s.leaving {
		return
	}
	s.drainSent = s.sendLocked(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Drain{
		Drain: &tcoderv1.Drain{Reason: reason},
	}})
}

// drained notes that the worker itself says that it is stopping.
func (s *session) drained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining, s.drainSent = true, true
}

// idle reports whether the worker may be let go.
func (s *session) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.leases) == 0 && s.reports == 0
}

// letGo tells the worker that it may exit.
func (s *session) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = s.sendLocked(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_LeaveGranted{
		LeaveGranted: &tcoderv1.LeaveGranted{},
	}})
}

// gone reports whether the worker exits and holds nothing.
func (s *session) gone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return (s.leaving || s.draining) && len(s.leases) == 0
}
