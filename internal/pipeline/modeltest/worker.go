package modeltest

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const leaseFor = 20 * time.Second

// workers are the ids of a case; some begin like others.
func workers() []string { return []string{"w", "w1", "w1-2", "w2", "w3"} }

// claimed is the answer to a claim, and whose it is.
type claimed struct {
	pipeline.Claimed

	Worker string
}

// attached is the answer to an attach, and whose it is.
type attached struct {
	Session int64
	Kept    []pipeline.Lease
	Worker  string
}

func (w *world) attach(t *rapid.T) {
	worker := pipeline.Worker{
		ID:      rapid.SampledFrom(workers()).Draw(t, "worker"),
		Version: "v1", Slots: 2, CPUs: 4, Encoders: []media.VideoCodec{"h264"},
		Draining: rapid.IntRange(0, 9).Draw(t, "draining") == 9,
	}

	if n := rapid.IntRange(0, 9).Draw(t, "where it isn't"); n < 2 {
		worker.MachineID = []string{"", "m1"}[n]
	} else {
		worker.MachineID = map[string]string{"w1-2": "m2", "w2": "m1", "w3": "m3"}[worker.ID]
	}

	// What it holds, but for what is lost on the way; and what it doesn't hold any more.
	for _, g := range w.leases[max(0, len(w.leases)-6):] {
		if g.worker == worker.ID && rapid.IntRange(0, 3).Draw(t, "it isn't held") > 0 {
			worker.Held = append(worker.Held, g.lease.Ref)
		}
	}

	if rapid.IntRange(0, 9).Draw(t, "no task's") == 9 {
		worker.Held = append(worker.Held, pipeline.LeaseRef{TaskID: "nonsense", Attempt: 1})
	}

	w.attachAs(worker)
}

func (w *world) attachAs(worker pipeline.Worker) {
	_, err := w.do(call{"AttachWorker", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		number, kept, err := s.AttachWorker(ctx, worker, leaseFor)

		return attached{number, kept, worker.ID}, refs(kept), err
	}})
	if pipeline.ReasonOf(err) != pipeline.ReasonPermissionDenied {
		require.NoError(w, err)
	}
}

func refs(leases []pipeline.Lease) []pipeline.LeaseRef {
	list := make([]pipeline.LeaseRef, 0, len(leases))
	for _, l := range leases {
		list = append(list, l.Ref)
	}

	return list
}

// session draws one, mostly of the newest.
func (w *world) session(t *rapid.T) session {
	if len(w.sessions) == 0 {
		t.Skip()
	}

	newest := map[string]session{}
	for _, s := range w.sessions {
		newest[s.worker] = s
	}

	var list []session

	for _, id := range workers() {
		if s, ok := newest[id]; ok {
			list = append(list, s)
		}
	}

	if rapid.IntRange(0, 7).Draw(t, "a stale session") == 7 {
		list = w.sessions
	}

	return rapid.SampledFrom(list).Draw(t, "session")
}

func (w *world) detach(t *rapid.T) {
	s, gone := w.session(t), rapid.Bool().Draw(t, "gone")

	_, _ = w.do(call{"DetachWorker", "", func(ctx context.Context, store pipeline.Store) (any, any, error) {
		return nil, "detached", store.DetachWorker(ctx, s.worker, s.number, gone)
	}})
}

func (w *world) drain(t *rapid.T) {
	seldom(t)

	id := rapid.SampledFrom(workers()).Draw(t, "worker")

	_, _ = w.do(call{"DrainWorker", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.DrainWorker(ctx, id)

		return got, got, err
	}})
}

func (w *world) leave(t *rapid.T) {
	seldom(t)

	at, minWarm := w.session(t), rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "min warm")

	_, _ = w.do(call{"LeaveWorker", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		may, err := s.LeaveWorker(ctx, at.worker, at.number, minWarm)

		return may, may, err
	}})
}

func (w *world) claim(t *rapid.T) {
	at := w.session(t)
	c := pipeline.Claim{
		RequestID: w.id("r"), WorkerID: at.worker, Session: at.number, Lease: leaseFor,
		Max:          rapid.SampledFrom([]int{1, 2, 4, 0}).Draw(t, "max"),
		RunningLimit: rapid.SampledFrom([]int{0, 0, 0, 0, 0, 1, 2}).Draw(t, "running limit"),
	}

	if len(w.requests) > 0 && rapid.IntRange(0, 7).Draw(t, "a request that was made") == 7 {
		c.RequestID = rapid.SampledFrom(w.requests[max(0, len(w.requests)-6):]).Draw(t, "request")
	}

	w.requests = append(w.requests, c.RequestID)

	_, _ = w.do(call{"ClaimTasks", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.ClaimTasks(ctx, c)

		var essence any
		if len(got.Leases) > 0 {
			essence = refs(got.Leases)
		}

		return claimed{got, c.WorkerID}, essence, err
	}})
}

// held are the leases that are still good.
func (w *world) held() []given {
	var list []given

	for _, g := range w.leases {
		if leasedTo(w.last.Jobs[g.lease.Job.ID], g.lease.Ref) == g.worker {
			list = append(list, g)
		}
	}

	return list
}

// leasedTo returns who holds a lease of a job, empty if nobody does.
func leasedTo(j pipeline.Job, ref pipeline.LeaseRef) string {
	for _, t := range j.Tasks {
		if t.ID == ref.TaskID && t.State == pipeline.TaskLeased && t.Attempts[len(t.Attempts)-1].Number == ref.Attempt {
			return t.Attempts[len(t.Attempts)-1].WorkerID
		}
	}

	return ""
}

// lease draws one, mostly a good one, and who speaks for it, mostly its worker.
func (w *world) lease(t *rapid.T) given {
	list := w.held()
	if len(list) == 0 || rapid.IntRange(0, 7).Draw(t, "a stale lease") == 7 {
		list = w.leases
	}

	if len(list) == 0 {
		t.Skip()
	}

	g := rapid.SampledFrom(list).Draw(t, "lease")

	switch rapid.IntRange(0, 15).Draw(t, "another's") {
	case 13:
		g.worker = rapid.SampledFrom(workers()).Draw(t, "worker")
	case 14:
		g.lease.Ref.Attempt = rapid.IntRange(0, 4).Draw(t, "attempt")
	case 15:
		g.lease.Ref.TaskID = rapid.SampledFrom([]string{"", "none", g.lease.Job.ID + "-99", g.lease.Job.ID}).Draw(t, "task")
	default:
	}

	return g
}

func (w *world) renew(t *rapid.T) {
	first := w.lease(t)

	var rs []pipeline.Renewal

	for _, g := range append([]given{first}, w.leases[max(0, len(w.leases)-3):]...) {
		if g.worker == first.worker {
			rs = append(rs, pipeline.Renewal{
				Ref:      g.lease.Ref,
				Fraction: rapid.SampledFrom([]float64{0, 0.25, 0.5, 0.75, 1, 2, -1, math.NaN()}).Draw(t, "fraction"),
				Progress: pipeline.Progress{
					MediaTime: time.Duration(rapid.IntRange(0, 100).Draw(t, "media time")) * time.Second,
					Speed:     rapid.SampledFrom([]float64{1.5, math.Inf(1)}).Draw(t, "speed"), FPS: 25, ETA: time.Second,
				},
			})
		}
	}

	_, _ = w.do(call{"RenewLeases", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.RenewLeases(ctx, first.worker, leaseFor, rs)

		return got, got.Lost, err
	}})
}

// planOf draws the tasks of a plan: each may wait for some of those before it.
func planOf(t *rapid.T) []pipeline.NewTask {
	tasks := make([]pipeline.NewTask, rapid.SampledFrom([]int{2, 1, 3, 4, 0}).Draw(t, "tasks"))

	for i := range tasks {
		tasks[i] = pipeline.NewTask{
			Kind: pipeline.KindEncode, Output: "hls", Part: i + 1,
			Weight: rapid.SampledFrom([]float64{0, 1, 2.5}).Draw(t, "weight"),
		}

		for before := range i {
			if rapid.IntRange(0, 3).Draw(t, "it waits") == 0 {
				tasks[i].After = append(tasks[i].After, before)
			}
		}
	}

	return tasks
}

func (w *world) finish(t *rapid.T) {
	g := w.lease(t)
	r := pipeline.TaskResult{Ref: g.lease.Ref, WorkerID: g.worker}

	if g.lease.Task.Kind == pipeline.KindProbe {
		r.Probe = &media.Probe{Format: "mov", Duration: time.Minute}
		r.Plan = &media.Plan{Duration: time.Minute}
		r.Tasks = planOf(t)
	} else {
		r.Result = &media.EncodeResult{Renditions: []media.EncodedRendition{{Result: media.RenditionResult{Name: g.lease.Ref.TaskID}}}}
		if rapid.Bool().Draw(t, "it is all of the job") {
			r.Outputs = outputsOf(g.lease.Job.ID)
		}
	}

	_, _ = w.do(call{"FinishTask", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		v, last, err := s.FinishTask(ctx, r)

		return []any{v, last}, []any{v, last}, err
	}})
}

func policy() pipeline.RetryPolicy {
	return pipeline.RetryPolicy{MaxFailures: 3, MaxLosses: 2, Backoff: time.Second, MaxBackoff: 3 * time.Second}
}

func (w *world) fail(t *rapid.T) {
	g := w.lease(t)
	f := pipeline.TaskFault{
		Ref: g.lease.Ref, WorkerID: g.worker, Retry: policy(),
		Class: rapid.SampledFrom([]pipeline.FaultClass{
			pipeline.FaultInput, pipeline.FaultMachine, pipeline.FaultMachine, pipeline.FaultUnknown, pipeline.FaultUnknown,
		}).Draw(t, "class"),
		Failure: pipeline.Failure{Reason: pipeline.ReasonEncodeFailed, Message: "it went wrong: 100 %"},
	}

	_, _ = w.do(call{"FailTask", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		v, err := s.FailTask(ctx, f)

		return v, v, err
	}})
}

func (w *world) release(t *rapid.T) {
	g := w.lease(t)

	_, _ = w.do(call{"ReleaseTask", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		v, err := s.ReleaseTask(ctx, g.worker, g.lease.Ref)

		return v, v, err
	}})
}

// machines are the ids of a case.
func machines() []string { return []string{"m1", "m2", "m3"} }

// term draws that of a leader, mostly of the newest; 0 is of a caller that needs no lead.
func (w *world) term(t *rapid.T) int64 {
	return max(0, w.last.Pool.Term-rapid.SampledFrom([]int64{0, 0, 0, 1, 2}).Draw(t, "terms ago"))
}

func (w *world) reserveMachine(t *rapid.T) {
	m := pipeline.Machine{ID: rapid.SampledFrom(machines()).Draw(t, "machine"), Provider: "process", Region: "here"}
	limit, term := rapid.IntRange(0, 3).Draw(t, "limit"), w.term(t)

	_, _ = w.do(call{"ReserveMachine", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		ok, err := s.ReserveMachine(ctx, m, limit, term)

		return ok, ok, err
	}})
}

func (w *world) moveMachine(t *rapid.T) {
	var list []pipeline.MachineTransition

	for _, row := range pipeline.MachineTransitions() {
		if !slices.Contains(list, row.By) {
			list = append(list, row.By)
		}
	}

	m := pipeline.MachineMove{
		ID: rapid.SampledFrom(machines()).Draw(t, "machine"), By: rapid.SampledFrom(list).Draw(t, "by"),
		ProviderID: rapid.SampledFrom([]string{"", "p1"}).Draw(t, "provider's id"), Term: w.term(t),
	}
	if m.By == pipeline.MachineBreak {
		m.Failure = &pipeline.Failure{Reason: pipeline.ReasonMachineFault, Message: "it broke"}
	}

	_, _ = w.do(call{"MoveMachine", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.MoveMachine(ctx, m)

		return got, got.State, err
	}})
}

func (w *world) loseMachine(t *rapid.T) {
	id, term := rapid.SampledFrom(machines()).Draw(t, "machine"), w.term(t)

	_, _ = w.do(call{"LoseMachine", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		return nil, "lost", s.LoseMachine(ctx, id, term)
	}})
}
