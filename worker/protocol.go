package worker

import (
	"context"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// receive obeys one message of the control plane.
func (l *loop) receive(ctx context.Context, message *tcoderv1.AttachResponse) {
	now := time.Now()

	// Until Welcome only Welcome counts: what comes earlier is of no state that
	// both sides agree on.
	welcome := message.GetWelcome()
	if !l.session.welcomed && welcome == nil {
		return
	}

	switch kind := message.GetMessage().(type) {
	case *tcoderv1.AttachResponse_Welcome:
		l.welcomed(welcome, now)
	case *tcoderv1.AttachResponse_Assignment:
		l.assigned(ctx, kind.Assignment, now)
	case *tcoderv1.AttachResponse_Heartbeat:
		l.renewed(kind.Heartbeat.GetRenewed())
		l.lost(kind.Heartbeat.GetLost())
		if idle := kind.Heartbeat.GetIdleThreshold(); idle != nil {
			l.idleThreshold = idle.AsDuration()
		}
	case *tcoderv1.AttachResponse_Report:
		l.acknowledged(kind.Report)
	case *tcoderv1.AttachResponse_Sign:
		l.signed(kind.Sign)
	case *tcoderv1.AttachResponse_Segments:
		l.segmentsAcknowledged(kind.Segments, now)
	case *tcoderv1.AttachResponse_Stop:
		l.stopped(kind.Stop)
	case *tcoderv1.AttachResponse_Drain:
		l.startDrain(kind.Drain.GetReason())
	case *tcoderv1.AttachResponse_LeaveGranted:
		l.left = len(l.tasks) == 0 // an assignment that crossed it counts more
	}

	l.session.silentBy = now.Add(l.silence)
}

// welcomed takes over what the control plane says is so, and sends again what
// it may not have got.
func (l *loop) welcomed(welcome *tcoderv1.Welcome, now time.Time) {
	l.heartbeat = defaultHeartbeat
	if interval := welcome.GetHeartbeatInterval().AsDuration(); interval > 0 {
		l.heartbeat = interval
	}

	lease := welcome.GetLease().AsDuration()
	if lease <= 0 {
		lease = defaultLease
	}

	l.silence = silenceOf(lease)
	l.idleThreshold = welcome.GetIdleThreshold().AsDuration()
	l.session.welcomed = true
	l.beatAt = now.Add(l.heartbeat)

	l.renewed(welcome.GetKept())
	l.lost(welcome.GetLost())
	l.log.Info("attached to the control plane", "server", l.route.server(), "calls", l.session.calls, "tasks", len(l.tasks))

	if l.draining {
		l.planExit(now)
	}

	for _, task := range l.tasks.inOrder() {
		if task.report != nil {
			l.sendReport(task)
		} else if task.segments.waiting != nil {
			l.reportSegments(task, now)
		}
	}

	l.resendSigns()
}

// assigned starts an attempt, unless it is held already.
func (l *loop) assigned(ctx context.Context, assignment *tcoderv1.Assignment, now time.Time) {
	key := keyOf(assignment.GetLease())
	if _, held := l.tasks[key]; held || key.taskID == "" {
		return
	}

	// One task has one lease: an attempt of it that is still here was lost, and
	// the word of it with it.
	for _, older := range l.tasks.of(key.taskID) {
		l.forget(older, "a newer attempt was assigned")
	}

	ctx, cancel := context.WithCancelCause(ctx)
	task := &heldTask{
		lease:   assignment.GetLease(),
		source:  newGrant(assignment.GetSource()),
		cancel:  cancel,
		started: now,
		log: l.log.With("job_id", assignment.GetJobId(),
			"task_id", assignment.GetLease().GetTaskId(), "attempt", assignment.GetLease().GetAttempt()),
	}
	task.segments.log = newSegmentLog(func() {
		select {
		case l.grew <- struct{}{}:
		default:
		}
	})
	l.tasks[key] = task

	if l.draining {
		l.handBack(task)

		return
	}

	l.running.Go(func() {
		defer cancel(nil)
		l.work(ctx, task, assignment)
	})
}

// work runs an attempt on a goroutine of its own.
func (l *loop) work(ctx context.Context, task *heldTask, assignment *tcoderv1.Assignment) {
	// A task that was stopped a moment ago may still be ending: its slot counts.
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-l.slots }()

	report, err := l.execute(ctx, Attempt{
		Assignment: assignment,
		source:     task.source,
		segments:   task.segments.log,
		Progress: func(progress *tcoderv1.TaskProgress) {
			task.progress.Store(progress)

			select {
			case l.progressed <- struct{}{}:
			default:
			}
		},
		Sign: func(ctx context.Context, objects []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
			return l.signObjects(ctx, &signCall{task: task, objects: objects})
		},
		SignRead: func(ctx context.Context, pieces []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
			return l.signObjects(ctx, &signCall{task: task, objects: pieces, read: true})
		},
		Parts: func(ctx context.Context, object *tcoderv1.EncodedObject, step *tcoderv1.PartsStep) (*tcoderv1.SignResponse, error) {
			return l.askPlane(ctx, &signCall{task: task, objects: []*tcoderv1.EncodedObject{object}, parts: step})
		},
		log: task.log,
	})
	if err != nil {
		report = faultReport(task.lease, faultOf(err))
	}

	select {
	case l.ended <- endedTask{task: task, report: report}:
	case <-l.closing:
	}
}

// signObjects has the loop ask for URLs.
func (l *loop) signObjects(ctx context.Context, call *signCall) ([]*tcoderv1.SignedRequest, error) {
	response, err := l.askPlane(ctx, call)

	return response.GetRequests(), err
}

// askPlane has the loop ask, and waits for the answer. The context may outlive
// the task: what was begun is to be given up even then, if that is quickly done.
func (l *loop) askPlane(ctx context.Context, call *signCall) (*tcoderv1.SignResponse, error) {
	call.answer = make(chan *tcoderv1.SignResponse, 1)

	select {
	case l.asked <- call:
	case <-l.closing:
		return nil, errStopped
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}

	select {
	case response := <-call.answer:
		switch {
		case ctx.Err() != nil: // why it has ended says more than a refusal
			return nil, context.Cause(ctx)
		case response.GetRefused() != nil:
			return nil, &signRefusedError{failure: response.GetRefused()}
		default:
			return response, nil
		}
	case <-l.closing:
		return nil, errStopped
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// askToSign sends a request for URLs, now and on every later stream until it is
// answered.
func (l *loop) askToSign(call *signCall) {
	if !l.holds(call.task) || call.task.report != nil {
		call.refuse() // nobody would: it is being stopped

		return
	}

	l.lastSign++
	l.signs[l.lastSign] = call
	l.sendSign(l.lastSign)
}

func (l *loop) signed(response *tcoderv1.SignResponse) {
	call, waiting := l.signs[response.GetRequestId()]
	if !waiting {
		return // answered on an earlier stream, or nobody's any more
	}

	if response.GetRefused().GetReason() == tcoderv1.ErrorReason_ERROR_REASON_LEASE_LOST {
		l.forget(call.task, "the lease is lost")

		return
	}

	delete(l.signs, response.GetRequestId())
	call.answer <- response
}

// taskEnded keeps the report of a task that ended by itself.
func (l *loop) taskEnded(end endedTask) {
	if !l.holds(end.task) || end.task.report != nil {
		return
	}

	l.report(end.task, end.report)
}

// report ends a task, for good: its report is sent until it is acknowledged, or
// refused for too long (see judge).
func (l *loop) report(task *heldTask, report *tcoderv1.TaskReport) {
	task.report = report
	l.dropSigns(task)
	l.sendReport(task)
}

func (l *loop) sendReport(task *heldTask) {
	task.resendAt = time.Now().Add(resendHeartbeats * l.heartbeat)
	l.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Report{Report: task.report}})
}

func (l *loop) acknowledged(ack *tcoderv1.ReportAck) {
	task := l.tasks[keyOf(ack.GetLease())]
	if task == nil || task.report == nil {
		return
	}

	delete(l.tasks, keyOf(ack.GetLease()))

	if ack.GetVerdict() != tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED {
		task.log.Warn("the report was not accepted", "verdict", ack.GetVerdict().String())
	}
}

func (l *loop) renewed(renewals []*tcoderv1.LeaseRenewal) {
	for _, renewal := range renewals {
		if task := l.tasks[keyOf(renewal.GetLease())]; task != nil {
			task.source.replace(renewal.GetSource())
		}
	}
}

func (l *loop) lost(leases []*tcoderv1.LeaseRef) {
	for _, lease := range leases {
		if task := l.tasks[keyOf(lease)]; task != nil {
			l.forget(task, "the lease is lost")
		}
	}
}

func (l *loop) stopped(stop *tcoderv1.StopTask) {
	if task := l.tasks[keyOf(stop.GetLease())]; task != nil {
		l.forget(task, stop.GetFailure().GetReason().String())
	}
}

// forget stops a task that is no longer this worker's.
func (l *loop) forget(task *heldTask, why string) {
	task.log.Info("task is given up", "why", why)
	task.cancel(errStopped)
	l.dropSigns(task)
	delete(l.tasks, keyOf(task.lease))
}

// startDrain takes nothing more, and hands back what won't end in time.
func (l *loop) startDrain(reason string) {
	if l.draining {
		return
	}

	now := time.Now()
	l.draining = true
	l.handBackAt = now.Add(l.cfg.DrainGrace)
	l.lastExit = now.Add(max(l.cfg.DrainTimeout, l.cfg.DrainGrace+ackWait))
	l.exitBy = l.lastExit

	if l.attached() {
		l.planExit(now)
	}

	l.log.Info("draining", "reason", reason, "tasks", len(l.tasks))

	if l.session != nil { // even before Welcome: it only has to follow Hello
		l.session.out.put(&tcoderv1.AttachRequest{
			Message: &tcoderv1.AttachRequest_Draining{Draining: &tcoderv1.Draining{}},
		})
	}

	for _, task := range l.tasks.inOrder() {
		if !task.endsWithin(l.cfg.DrainGrace, now) {
			l.handBack(task)
		}
	}
}

// planExit says until when an attached control plane may answer the last
// reports. One that is away may come back until the drain must be over.
func (l *loop) planExit(now time.Time) {
	from := l.handBackAt
	if from.Before(now) {
		from = now // what was to be handed back has been
	}

	l.exitBy = from.Add(ackWait)
	if l.exitBy.After(l.lastExit) {
		l.exitBy = l.lastExit
	}
}

// handBack stops a task that another worker shall have.
func (l *loop) handBack(task *heldTask) {
	if task.report != nil {
		return
	}

	task.log.Info("task is handed back")
	task.cancel(errHandedBack)
	l.report(task, &tcoderv1.TaskReport{
		Lease: task.lease, End: &tcoderv1.TaskReport_Released{Released: &tcoderv1.Released{}},
	})
}

// holds tells whether the worker still answers for a task.
func (l *loop) holds(task *heldTask) bool { return l.tasks[keyOf(task.lease)] == task }

func (l *loop) dropSigns(task *heldTask) {
	for id, call := range l.signs {
		if call.task == task {
			call.refuse()
			delete(l.signs, id)
		}
	}
}
