package pool_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/pool"
)

// TestReattach: a cut stream changes nothing. The worker attaches again, here
// to another replica, is told what is still its own and what is lost, and its
// attempt goes on.
func TestReattach(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	first, second := c.replica(t), c.replica(t)
	w, _ := first.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	ref := w.assignment().GetLease()
	w.cut()
	require.Error(t, w.ends())

	foreign := &tcoderv1.LeaseRef{TaskId: media.TaskID(job.ID, 9), Attempt: 1}
	w, welcome := second.attach(t, &tcoderv1.Hello{WorkerId: w.id, Held: []*tcoderv1.LeaseRef{ref, foreign}})
	require.Len(t, welcome.GetKept(), 1)
	require.Equal(t, ref.GetTaskId(), welcome.GetKept()[0].GetLease().GetTaskId())
	require.NotEmpty(t, welcome.GetKept()[0].GetSource().GetUrl())
	require.Len(t, welcome.GetLost(), 1)
	require.Equal(t, foreign.GetTaskId(), welcome.GetLost()[0].GetTaskId())
	require.Equal(t, accepted, w.report(probed(ref)))
	require.Len(t, c.job(t, job.ID).Tasks[0].Attempts, 1)
}

// TestDrainWorker: a worker that is told to drain on another replica hears of
// it, gets nothing more, and may finish what it has.
func TestDrainWorker(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	holder, other := c.replica(t), c.replica(t)
	w, _ := holder.attach(t, &tcoderv1.Hello{Slots: 2})
	c.submit(t)
	ref := w.assignment().GetLease()
	res, err := other.api().DrainWorker(t.Context(), &tcoderv1.DrainWorkerRequest{WorkerId: w.id})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.WorkerState_WORKER_STATE_DRAINING, res.GetWorker().GetState())
	expect(w, (*tcoderv1.AttachResponse).GetDrain)
	c.submit(t)
	quiet(w, (*tcoderv1.AttachResponse).GetAssignment)
	require.Equal(t, accepted, w.report(probed(ref)))
	require.NoError(t, w.stream.CloseRequest())
	require.Error(t, w.ends()) // io.EOF
	require.Eventually(t, func() bool {
		list, err := other.api().ListWorkers(t.Context(), &tcoderv1.ListWorkersRequest{})
		return err == nil && len(list.GetWorkers()) == 0
	}, patience, 5*time.Millisecond, "a drained worker that left is forgotten")

	_, err = other.api().DrainWorker(t.Context(), &tcoderv1.DrainWorkerRequest{WorkerId: "nobody"})
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
}

// TestUnlisted: a worker that the store hasn't seen lately, as after an outage,
// stays attached: the next sweep of its replica says that it is there.
func TestUnlisted(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	unseen, _ := r.attach(t, &tcoderv1.Hello{})
	require.NoError(t, c.store.AdvanceClock(t.Context(), 2*time.Minute))
	seen, _ := r.attach(t, &tcoderv1.Hello{})
	_, err := r.api().DrainWorker(t.Context(), &tcoderv1.DrainWorkerRequest{WorkerId: seen.id})
	require.NoError(t, err)
	expect(seen, (*tcoderv1.AttachResponse).GetDrain) // all were looked at
	quiet(unseen, (*tcoderv1.AttachResponse).GetAssignment)
	c.submit(t)
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_PROBE, unseen.assignment().GetKind())
}

// TestLeave: an idle worker may leave and gets nothing from then on; one that
// holds a task may not.
func TestLeave(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) { cfg.Settings.Idle = time.Minute })
	w, welcome := r.attach(t, &tcoderv1.Hello{MachineId: "m1"})
	require.Equal(t, time.Minute, welcome.GetIdleThreshold().AsDuration())
	leave := &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Leave{Leave: &tcoderv1.LeaveRequest{}}}

	c.submit(t)
	ref := w.assignment().GetLease()
	w.send(leave)
	quiet(w, (*tcoderv1.AttachResponse).GetLeaveGranted)
	require.Equal(t, accepted, w.report(failed(ref, tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT)))
	w.send(leave)
	expect(w, (*tcoderv1.AttachResponse).GetLeaveGranted)
	c.submit(t)
	quiet(w, (*tcoderv1.AttachResponse).GetAssignment)

	_, welcome = r.attach(t, &tcoderv1.Hello{})
	require.Nil(t, welcome.GetIdleThreshold(), "a self-managed worker stays")
}

// TestServerStops: a control plane that stops ends its streams, told so, and
// takes nothing away; another one goes on with the same attempts.
func TestServerStops(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	first, second := c.replica(t), c.replica(t)
	w, _ := first.attach(t, &tcoderv1.Hello{})
	c.submit(t)
	ref := w.assignment().GetLease()
	first.drain()
	err := w.ends()
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING, reasonOf(t, err))
	<-first.ended
	late := first.connect(t, &tcoderv1.Hello{})
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING, reasonOf(t, late.ends()))

	w, welcome := second.attach(t, &tcoderv1.Hello{WorkerId: w.id, Held: []*tcoderv1.LeaseRef{ref}})
	require.Len(t, welcome.GetKept(), 1)
	require.Equal(t, accepted, w.report(probed(ref)))
}

func reasonOf(t *testing.T, err error) tcoderv1.ErrorReason {
	t.Helper()
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	for _, d := range coded.Details() {
		value, err := d.Value()
		require.NoError(t, err)
		if detail, ok := value.(*tcoderv1.ErrorDetail); ok {
			return detail.GetReason()
		}
	}
	return 0
}

// TestReplaced: of two streams of a worker the newer one counts, on whichever
// replica.
func TestReplaced(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	first, second := c.replica(t), c.replica(t)
	older, _ := first.attach(t, &tcoderv1.Hello{WorkerId: "w1"})
	newer, _ := first.attach(t, &tcoderv1.Hello{WorkerId: "w1"})
	require.Error(t, older.ends())
	newest, _ := second.attach(t, &tcoderv1.Hello{WorkerId: "w1"})
	_, err := c.store.DrainWorker(t.Context(), "w1") // makes every replica look
	require.NoError(t, err)
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(newer.ends()))
	expect(newest, (*tcoderv1.AttachResponse).GetDrain)
}

// TestIncompatible: a stream that doesn't begin with Hello is told so.
func TestIncompatible(t *testing.T) {
	t.Parallel()
	r := newCell(t).replica(t)
	stream, err := r.api().Attach(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: &tcoderv1.Heartbeat{}}}))
	_, err = stream.Receive()
	require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err))
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE, reasonOf(t, err))
}

// TestView: the operators' view counts machines, workers, slots and tasks, and
// says why tasks wait.
func TestView(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	c.submit(t)
	view, err := r.api().GetPool(t.Context(), &tcoderv1.GetPoolRequest{})
	require.NoError(t, err)
	require.EqualValues(t, 1, view.GetReadyTasks())
	require.NotNil(t, view.GetOldestReady())
	require.Equal(t, "No worker is attached, and this pool makes none.", view.GetHoldReason())

	reserved, err := c.store.ReserveMachine(t.Context(), pipeline.Machine{ID: "m1", Provider: "process"}, 1, 0)
	require.NoError(t, err)
	require.True(t, reserved)
	w, _ := r.attach(t, &tcoderv1.Hello{MachineId: "m1", Slots: 2})
	w.assignment()
	view, err = r.api().GetPool(t.Context(), &tcoderv1.GetPoolRequest{})
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 1, 2, 1}, []uint32{view.GetMachines(), view.GetWorkers(), view.GetSlots(), view.GetBusySlots()})
	require.EqualValues(t, 1, view.GetLeasedTasks())
	require.Empty(t, view.GetHoldReason())
	machines, err := r.api().ListMachines(t.Context(), &tcoderv1.ListMachinesRequest{})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.MachineState_MACHINE_STATE_RUNNING, machines.GetMachines()[0].GetState())
	workers, err := r.api().ListWorkers(t.Context(), &tcoderv1.ListWorkersRequest{})
	require.NoError(t, err)
	require.Equal(t, tcoderv1.WorkerState_WORKER_STATE_BUSY, workers.GetWorkers()[0].GetState())

	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(r.svc.Collector()))
	families, err := registry.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	delete(values, "tcoder_oldest_ready_seconds")
	require.Equal(t, map[string]float64{
		"tcoder_assignments_total probe": 1, "tcoder_dispatch_seconds": 1, "tcoder_queue_wait_seconds": 1,
		"tcoder_tasks ready": 0, "tcoder_tasks leased": 1, "tcoder_tasks delayed": 0, "tcoder_tasks limited": 0, "tcoder_worker_sessions": 1,
	}, values)
}
