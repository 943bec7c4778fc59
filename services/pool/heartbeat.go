package pool

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// overtimeGrace is how much longer than its time limit an attempt may last
// before the control plane ends it. The worker ends it by itself, if it can.
const overtimeGrace = time.Minute

// heartbeat renews the leases of a worker and tells it of those that are lost.
func (s *Service) heartbeat(ctx context.Context, sess *session, h *tcoderv1.Heartbeat) {
	ack := &tcoderv1.HeartbeatAck{}
	renewals, overtime, due := sess.renewals(h, s.cfg, time.Now())
	for _, l := range overtime {
		s.stopOvertime(ctx, sess, l)
	}
	if due {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		renewed, err := s.deps.Store.RenewLeases(callCtx, sess.worker.ID, s.cfg.Lease, renewals)
		if err != nil {
			sess.log.WarnContext(ctx, "leases can't be renewed", "error", err)
			return // no answer: the worker may look for another replica
		}
		sess.setWatched(renewed.Watched)
		for _, ref := range renewed.Lost {
			if sess.drop(ref) {
				sess.log.InfoContext(ctx, "lease lost", "task_id", ref.TaskID, "attempt", ref.Attempt)
				ack.Lost = append(ack.Lost, mapper.LeaseRefToProto(ref))
			}
		}
		if len(renewed.Lost) > 0 {
			s.dispatch.freed()
		}
	}
	if idle, changed := sess.newIdle(s.settings.Load().Idle); changed {
		ack.IdleThreshold = durationpb.New(idle)
	}
	for _, l := range sess.staleURLs(s.urlLife()/2, time.Now()) {
		source, err := s.signSource(ctx, l)
		if err != nil {
			sess.log.ErrorContext(ctx, "source can't be signed", "task_id", l.ref.TaskID, "error", err)
			continue
		}
		ack.Renewed = append(ack.Renewed, &tcoderv1.LeaseRenewal{Lease: mapper.LeaseRefToProto(l.ref), Source: source})
	}
	sess.send(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Heartbeat{Heartbeat: ack}})
}

// renewals takes in progress and returns what is to be renewed, which leases
// run past their time, and whether it is time to call the store.
//
// A lease that the worker doesn't name is renewed while its report is worked
// on, or while its assignment may still be on the way. After that the worker
// has lost it, and it shall run out.
func (s *session) renewals(h *tcoderv1.Heartbeat, cfg Config, now time.Time) ([]pipeline.Renewal, []*lease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	named := make(map[pipeline.LeaseRef]bool, len(h.GetRunning()))
	for _, p := range h.GetRunning() {
		renewal := mapper.RenewalFromProto(p)
		named[renewal.Ref] = true
		if l := s.leases[renewal.Ref]; l != nil {
			l.renewal = renewal
		}
	}
	var overtime []*lease
	for ref, l := range s.leases {
		if !l.reporting && now.Sub(l.started) > timeLimit(l)+overtimeGrace {
			overtime = append(overtime, l)
			delete(s.leases, ref)
		}
	}
	// The sweeper's tick shows an idle worker to be there. While nobody watches,
	// what a job's readers are told need not be newer.
	interval := cfg.StoreInterval
	if s.watched {
		interval = cfg.ProgressInterval
	}
	if len(s.leases) == 0 || now.Sub(s.lastRenewal) < interval {
		return nil, overtime, false
	}
	s.lastRenewal = now
	renewals := make([]pipeline.Renewal, 0, len(s.leases))
	for ref, l := range s.leases {
		if named[ref] || l.reporting || now.Sub(l.since) < cfg.Lease {
			renewals = append(renewals, l.renewal)
		}
	}
	return renewals, overtime, len(renewals) > 0
}

// staleURLs returns the leases whose source URL is older than an age, and
// counts it as renewed.
func (s *session) staleURLs(age time.Duration, now time.Time) []*lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stale []*lease
	for _, l := range s.leases {
		if now.Sub(l.signedAt) >= age {
			l.signedAt = now
			stale = append(stale, l)
		}
	}
	return stale
}

// stopOvertime ends an attempt that runs past its time limit though its
// worker should have ended it.
func (s *Service) stopOvertime(ctx context.Context, sess *session, l *lease) {
	failure := pipeline.Failure{Reason: pipeline.ReasonTaskTimeout, Message: "The task ran past its time limit."}
	sess.log.WarnContext(ctx, "attempt runs past its time limit", "task_id", l.ref.TaskID, "attempt", l.ref.Attempt)
	s.spawn(ctx, func(ctx context.Context) {
		_, err := s.deps.Store.FailTask(ctx, pipeline.TaskFault{
			Ref: l.ref, WorkerID: sess.worker.ID, Class: pipeline.FaultUnknown, Failure: failure, Retry: s.cfg.Retry,
		})
		if err != nil {
			sess.log.WarnContext(ctx, "attempt can't be ended", "task_id", l.ref.TaskID, "error", err)
		}
	})
	s.stop(sess, l.ref, failure)
	s.dispatch.freed()
}

// stop tells a worker to stop an attempt.
func (s *Service) stop(sess *session, ref pipeline.LeaseRef, f pipeline.Failure) {
	sess.send(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Stop{Stop: &tcoderv1.StopTask{
		Lease: mapper.LeaseRefToProto(ref), Failure: mapper.FailureToProto(&f),
	}}})
}

// spawn runs f beside the stream, which may end before it does. It isn't run
// once the server stops.
func (s *Service) spawn(ctx context.Context, f func(ctx context.Context)) {
	if !s.begin() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	go func() {
		defer s.work.Done()
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		f(ctx)
	}()
}
