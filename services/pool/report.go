package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const (
	publishTimeout = 2 * time.Minute
	// stopGrace is how long publishing, or a step of an upload, may still take when the server stops.
	stopGrace = 5 * time.Second
)

// settled is what became of a report.
type settled struct {
	verdict   tcoderv1.ReportVerdict
	jobID     string
	toPublish bool
}

// takeReport works on a report beside the stream, and holds the stream up if
// too many come. It is answered once the store has taken it. If that can't be,
// the worker sends it again.
func (s *Service) takeReport(ctx context.Context, sess *session, r *tcoderv1.TaskReport) {
	ref := mapper.LeaseRefFromProto(r.GetLease())
	l, ok := sess.startReport(ref)
	if !ok { // it is worked on already
		return
	}
	if !s.beside(ctx, sess, func(ctx context.Context) {
		if result := s.report(ctx, sess, l, ref, r); result.toPublish {
			// It may take long, and must not hold up the stream.
			s.work.Go(func() { s.publish(ctx, sess, result.jobID) })
		}
	}) {
		sess.endReport(ref, false)
	}
}

// report ends an attempt in the store and answers the worker. Its result is
// empty if neither could be done.
func (s *Service) report(ctx context.Context, sess *session, l *lease, ref pipeline.LeaseRef, r *tcoderv1.TaskReport) settled {
	log := sess.log.With("task_id", ref.TaskID, "attempt", ref.Attempt)
	var result settled
	err := persist(ctx, sess, func(ctx context.Context) error {
		err := pipeline.Contain(func() (err error) {
			result, err = s.settle(ctx, sess, l, ref, r)
			return err
		})
		if err != nil && !transient(err) {
			// Saying it again won't help: another attempt might.
			log.ErrorContext(ctx, "report can't be settled", "error", err)
			result, err = s.reject(ctx, sess, result, ref, "The control plane could not settle the result.")
		}
		return err
	})
	sess.judge(r, result.verdict)
	sess.endReport(ref, err == nil)
	if err != nil {
		log.WarnContext(ctx, "report isn't settled, the worker says it again", "error", err)
		return settled{}
	}
	log.InfoContext(ctx, "attempt ended", "job_id", result.jobID, "report", reportName(r), "verdict", result.verdict.String())
	s.metrics.reports.WithLabelValues(reportName(r), verdictName(result.verdict)).Inc()
	sess.send(&tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Report{Report: &tcoderv1.ReportAck{
		Lease: r.GetLease(), Verdict: result.verdict,
	}}})
	s.dispatch.freed()
	return result
}

// publish publishes a job whose tasks are all done. If it can't, or the server
// stops meanwhile, the job's duty stays and the sweeper of a replica does it.
func (s *Service) publish(ctx context.Context, sess *session, jobID string) {
	ctx, cancel := s.whileServing(ctx, publishTimeout)
	defer cancel()
	if err := pipeline.Contain(func() error { return s.deps.Publish(ctx, jobID) }); err != nil {
		sess.log.WarnContext(ctx, "job can't be published yet", "job_id", jobID, "error", err)
	}
}

// whileServing bounds what may take long: by a time, and by a grace once the server stops.
func (s *Service) whileServing(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, most)
	go func() {
		select {
		case <-s.draining:
			sleep(ctx, stopGrace)
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// persist repeats f while a store can't be reached and the stream lives: once
// it ends, the worker says everything again.
func persist(ctx context.Context, sess *session, f func(ctx context.Context) error) error {
	for pause := firstRetry; ; pause = min(2*pause, maxRetry) {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			return f(ctx)
		}()
		if err == nil || !transient(err) {
			return err
		}
		sess.log.WarnContext(ctx, "store can't be reached, trying again", "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-sess.ended:
			timer.Stop()
			return err
		}
	}
}

// transient reports whether the same call may succeed later.
func transient(err error) bool {
	return pipeline.ReasonOf(err) == pipeline.ReasonStateUnavailable ||
		errors.Is(err, objectstore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// settle ends an attempt as its report says.
func (s *Service) settle(ctx context.Context, sess *session, l *lease, ref pipeline.LeaseRef, r *tcoderv1.TaskReport) (settled, error) {
	jobID, _, ok := media.SplitTaskID(ref.TaskID)
	if !ok {
		return settled{verdict: tcoderv1.ReportVerdict_REPORT_VERDICT_STALE}, nil
	}
	out := settled{jobID: jobID}
	switch end := r.GetEnd().(type) {
	case *tcoderv1.TaskReport_Released:
		v, err := s.deps.Store.ReleaseTask(ctx, sess.worker.ID, ref)
		out.verdict = mapper.VerdictToProto(v)
		return out, err
	case *tcoderv1.TaskReport_Fault:
		v, err := s.fail(ctx, sess, ref, mapper.FaultClassFromProto(end.Fault.GetClass()), mapper.FailureFromProto(end.Fault.GetFailure()))
		out.verdict = mapper.VerdictToProto(v)
		return out, err
	}
	job, task, found, err := s.lookUp(ctx, l, jobID, ref)
	if err != nil {
		return out, err
	}
	if !found {
		out.verdict = tcoderv1.ReportVerdict_REPORT_VERDICT_STALE
		return out, nil
	}
	result := pipeline.TaskResult{Ref: ref, WorkerID: sess.worker.ID}
	switch end := r.GetEnd().(type) {
	case *tcoderv1.TaskReport_Probe:
		return s.settleProbe(ctx, sess, out, job, task, result, end.Probe)
	case *tcoderv1.TaskReport_Encode:
		return s.settleEncode(ctx, sess, l, out, job, task, result, end.Encode)
	default:
		return s.reject(ctx, sess, out, ref, "The report says nothing.")
	}
}

// lookUp returns the job and the task of a lease: from the session's memory,
// or from the store if the report comes after a reconnect.
func (s *Service) lookUp(ctx context.Context, l *lease, jobID string, ref pipeline.LeaseRef) (pipeline.Job, pipeline.Task, bool, error) {
	if l != nil {
		return l.job, l.task, true, nil
	}
	job, err := s.deps.Store.GetJob(ctx, jobID)
	if err != nil {
		if pipeline.ReasonOf(err) == pipeline.ReasonJobNotFound {
			return pipeline.Job{}, pipeline.Task{}, false, nil
		}
		return pipeline.Job{}, pipeline.Task{}, false, err
	}
	at := slices.IndexFunc(job.Tasks, func(t pipeline.Task) bool { return t.ID == ref.TaskID })
	if at < 0 {
		return pipeline.Job{}, pipeline.Task{}, false, nil
	}
	return job, job.Tasks[at], true, nil
}

// settleProbe plans the job from what its source is.
func (s *Service) settleProbe(ctx context.Context, sess *session, out settled, job pipeline.Job, task pipeline.Task,
	result pipeline.TaskResult, m *tcoderv1.ProbeResult,
) (settled, error) {
	if task.Kind != pipeline.KindProbe {
		return s.reject(ctx, sess, out, result.Ref, "The task isn't a probe.")
	}
	refuse := func(f pipeline.Failure) (settled, error) {
		v, err := s.fail(ctx, sess, result.Ref, pipeline.FaultInput, f)
		out.verdict = mapper.VerdictToProto(v)
		return out, err
	}
	probe := mapper.ProbeFromProto(m)
	spec, err := media.Resolve(job.Spec)
	if err != nil {
		return out, fmt.Errorf("resolve spec of job %s: %w", job.ID, err)
	}
	workers, err := s.roster.recent(ctx, s.deps.Store)
	if err != nil {
		return out, err
	}
	plan, err := media.MakePlan(probe, spec, s.limits(job.Project), s.capacity(workers))
	if err != nil {
		var refusal *media.PlanError
		if !errors.As(err, &refusal) {
			return out, fmt.Errorf("plan job %s: %w", job.ID, err)
		}
		return refuse(pipeline.Failure{Reason: pipeline.Reason(refusal.Reason), Message: refusal.Message})
	}
	if failure := missingEncoder(workers, plan.Outputs...); failure != nil {
		if workers, err = s.deps.Store.ListWorkers(ctx); err != nil { // the one that has it may have come since
			return out, err
		}
		if failure = missingEncoder(workers, plan.Outputs...); failure != nil {
			return refuse(*failure)
		}
	}
	for _, t := range media.Tasks(plan) {
		kind := pipeline.KindEncode
		switch {
		case t.Audio:
			kind = pipeline.KindAudio
		case t.Joins:
			kind = pipeline.KindAssemble
		}
		result.Tasks = append(result.Tasks, pipeline.NewTask{Kind: kind, Output: t.Output, Part: t.Part, Weight: t.Weight, After: t.After})
	}
	for i := range probe.Streams {
		probe.Streams[i].Keyframes = nil // the plan has what it needs of it
	}
	result.Probe, result.Plan = &probe, &plan
	return s.finish(ctx, out, result)
}

// capacity is how many tasks the pool could run at a time: those of the workers
// that are there, or one for each machine that may be.
func (s *Service) capacity(workers []pipeline.Worker) int {
	slots := 0
	for _, w := range present(workers) {
		slots += w.Slots
	}
	return max(slots, s.settings.Load().Limit)
}

// settleEncode commits what an attempt made, if it is what was planned.
func (s *Service) settleEncode(ctx context.Context, sess *session, l *lease, out settled, job pipeline.Job, task pipeline.Task,
	result pipeline.TaskResult, m *tcoderv1.EncodeResult,
) (settled, error) {
	output, ok := plannedOutput(job, task)
	if !ok {
		return s.reject(ctx, sess, out, result.Ref, "The task isn't an encode.")
	}
	encoded := mapper.EncodeResultFromProto(m)
	if err := media.VerifyResult(output, task.Part, job.Plan.Duration, encoded); err != nil {
		return s.reject(ctx, sess, out, result.Ref, "The result doesn't match the plan: "+err.Error()+".")
	}
	if task.Kind == pipeline.KindAssemble {
		tracks, err := s.pieces(ctx, l, job.ID, task)
		if err != nil {
			return out, err
		}
		if err := media.VerifyJoined(output, tracks.video, encoded); err != nil {
			return s.reject(ctx, sess, out, result.Ref, "The result isn't its segments: "+err.Error()+".")
		}
	}
	prefix, err := attemptPrefix(job, task, result.Ref)
	if err != nil {
		return out, err
	}
	var mismatch *mismatchError
	if err := s.verifyObjects(ctx, prefix, encoded); errors.As(err, &mismatch) {
		return s.reject(ctx, sess, out, result.Ref, mismatch.Error())
	} else if err != nil {
		return out, err
	}
	if err := s.commitRest(ctx, sess, job, task, result.Ref, output, encoded); errors.As(err, &mismatch) {
		return s.reject(ctx, sess, out, result.Ref, mismatch.Error())
	} else if err != nil {
		return out, err
	}
	result.Result = &encoded
	result.Outputs = pipeline.OutputsOf(job, task, result.Ref.Attempt, encoded)
	return s.finish(ctx, out, result)
}

func (s *Service) finish(ctx context.Context, out settled, result pipeline.TaskResult) (settled, error) {
	v, last, err := s.deps.Store.FinishTask(ctx, result)
	// With its outputs, the job is completed.
	out.verdict, out.toPublish = mapper.VerdictToProto(v), last && len(result.Outputs) == 0
	return out, err
}

// reject fails an attempt whose result is not what was planned.
func (s *Service) reject(ctx context.Context, sess *session, out settled, ref pipeline.LeaseRef, message string) (settled, error) {
	v, err := s.fail(ctx, sess, ref, pipeline.FaultUnknown, pipeline.Failure{Reason: pipeline.ReasonOutputInvalid, Message: message})
	out.verdict = mapper.VerdictToProto(v)
	if v == pipeline.VerdictAccepted {
		sess.log.WarnContext(ctx, "result rejected", "task_id", ref.TaskID, "attempt", ref.Attempt, "why", message)
		out.verdict = tcoderv1.ReportVerdict_REPORT_VERDICT_REJECTED
	}
	return out, err
}

func (s *Service) fail(ctx context.Context, sess *session, ref pipeline.LeaseRef, class pipeline.FaultClass, f pipeline.Failure) (pipeline.Verdict, error) {
	return s.deps.Store.FailTask(ctx, pipeline.TaskFault{
		Ref: ref, WorkerID: sess.worker.ID, Class: class, Failure: f, Retry: s.cfg.Retry,
	})
}
