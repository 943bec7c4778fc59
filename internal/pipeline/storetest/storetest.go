// Package storetest is the conformance suite of [pipeline.Store]: what its
// comments promise, as tests that any implementation has to pass.
package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Harness is a store under test: empty, used by one test alone.
type Harness struct {
	Store pipeline.Store
	// Advance moves the store's clock forward.
	Advance func(t *testing.T, d time.Duration)
}

// Run runs the suite. Open is called once for each test and returns an empty
// store; what it opens it closes with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()

	for _, group := range []struct {
		name  string
		tests map[string]func(*env)
	}{
		{"Upload", uploadTests()},
		{"Job", jobTests()},
		{"List", listTests()},
		{"Admit", admitTests()},
		{"Fair", fairTests()},
		{"Lease", leaseTests()},
		{"Race", raceTests()},
		{"Fault", faultTests()},
		{"Progress", progressTests()},
		{"Stream", streamTests()},
		{"Transition", transitionTests()},
		{"Worker", workerTests()},
		{"Machine", machineTests()},
		{"Pool", poolTests()},
		{"Sweep", sweepTests()},
		{"Duty", dutyTests()},
		{"Notice", noticeTests()},
		{"Crowd", crowdTests()},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()

			for name, test := range group.tests {
				t.Run(name, func(t *testing.T) {
					t.Parallel()

					h := open(t)
					test(&env{T: t, store: h.Store, advance: h.Advance})
				})
			}
		})
	}
}

// The periods that the tests use.
const (
	leaseFor = 20 * time.Second
	leadFor  = 15 * time.Second
	keyFor   = time.Hour
	replica  = "replica-1"
)

// env is what a test works with.
type env struct {
	*testing.T

	store   pipeline.Store
	advance func(t *testing.T, d time.Duration)
	claims  atomic.Int64
}

func (e *env) ctx() context.Context { return e.Context() }

// idsInOrder makes ids one after the other. Those of ulid.Make don't always sort so
// within a millisecond, if other tests make some at the same time.
var idsInOrder = struct { //nolint:gochecknoglobals // all tests of a process draw from it
	sync.Mutex
	entropy *ulid.MonotonicEntropy
}{entropy: ulid.Monotonic(rand.Reader, 0)}

// newID returns an id that sorts after all before.
func newID() string {
	idsInOrder.Lock()
	defer idsInOrder.Unlock()

	return ulid.MustNew(ulid.Now(), idsInOrder.entropy).String()
}

func probe() pipeline.NewTask { return pipeline.NewTask{Kind: pipeline.KindProbe} }

func encode(weight float64, after ...int) pipeline.NewTask {
	return pipeline.NewTask{Kind: pipeline.KindEncode, Output: "hls", Weight: weight, After: after}
}

// newJob returns a job to be created, with every field that a caller sets.
func newJob() pipeline.Job {
	id := newID()

	return pipeline.Job{
		ID: id, Project: pipeline.DefaultProject,
		Spec:   media.Spec{Preset: "hls-adaptive", Qualities: []string{"720p", "360p"}},
		Source: pipeline.Source{ObjectKey: "in/default/" + id + "/source", SizeBytes: 1234, ETag: "etag", Filename: "a clip.mp4"},
		Labels: map[string]string{"customer": "42"},
	}
}

// job creates a job that waits for its probe.
func (e *env) job() pipeline.Job {
	e.Helper()

	return e.jobOf(newJob())
}

func (e *env) jobOf(j pipeline.Job) pipeline.Job {
	e.Helper()

	created, err := e.store.CreateJob(e.ctx(), j, probe(), pipeline.Admission{})
	require.NoError(e, err)

	return created
}

// upload creates an open upload with its job.
func (e *env) upload(ttl time.Duration) pipeline.Upload {
	e.Helper()

	u, j := newUpload()
	created, err := e.store.CreateUpload(e.ctx(), u, j, ttl, pipeline.Admission{})
	require.NoError(e, err)

	return created
}

func newUpload() (pipeline.Upload, pipeline.Job) {
	id, j := newID(), newJob()
	j.Source = pipeline.Source{ObjectKey: "in/default/" + id + "/source", Filename: "a clip.mp4", UploadID: id}

	return pipeline.Upload{
		ID: id, JobID: j.ID, Project: j.Project, Filename: "a clip.mp4", SizeBytes: 100 << 20, ContentType: "video/mp4",
		ObjectKey: j.Source.ObjectKey, MultipartID: "multipart", PartSizeBytes: 16 << 20, PartCount: 7,
	}, j
}

// get reads a job.
func (e *env) get(id string) pipeline.Job {
	e.Helper()

	j, err := e.store.GetJob(e.ctx(), id)
	require.NoError(e, err)

	return j
}

// task reads a task of a job by its index.
func (e *env) task(jobID string, index int) pipeline.Task {
	e.Helper()

	j := e.get(jobID)
	require.Greater(e, len(j.Tasks), index)

	return j.Tasks[index]
}

// events reads the events of a job and returns their types. The sequence has no gaps.
func (e *env) events(id string) []pipeline.EventType {
	e.Helper()

	events, err := e.store.JobEvents(e.ctx(), id, 0)
	require.NoError(e, err)

	types := make([]pipeline.EventType, 0, len(events))
	for i, event := range events {
		require.Equal(e, int64(i+1), event.Sequence)
		require.Equal(e, id, event.JobID)
		require.False(e, event.At.IsZero())

		types = append(types, event.Type)
	}

	require.Equal(e, int64(len(events)), e.get(id).Sequence)

	return types
}

// worker is an attached worker.
type worker struct {
	id      string
	session int64
}

// attach attaches a worker that holds the given leases.
func (e *env) attach(id string, held ...pipeline.LeaseRef) worker {
	e.Helper()

	session, _, err := e.store.AttachWorker(e.ctx(), pipeline.Worker{ID: id, Slots: 4, Held: held}, leaseFor)
	require.NoError(e, err)

	return worker{id, session}
}

// claim leases tasks to a worker.
func (e *env) claim(w worker, most int) []pipeline.Lease {
	e.Helper()

	claimed, err := e.store.ClaimTasks(e.ctx(), pipeline.Claim{
		RequestID: fmt.Sprint(e.claims.Add(1)), WorkerID: w.id, Session: w.session, Max: most, Lease: leaseFor,
	})
	require.NoError(e, err)

	return claimed.Leases
}

// claimOne leases the one task that is ready.
func (e *env) claimOne(w worker) pipeline.Lease {
	e.Helper()

	leases := e.claim(w, 1)
	require.Len(e, leases, 1)

	return leases[0]
}

// plan finishes a probe with the tasks of its plan.
func (e *env) plan(w worker, l pipeline.Lease, tasks ...pipeline.NewTask) {
	e.Helper()

	v, last, err := e.store.FinishTask(e.ctx(), pipeline.TaskResult{
		Ref: l.Ref, WorkerID: w.id, Probe: &media.Probe{Format: "mov", Duration: time.Minute},
		Plan: &media.Plan{Duration: time.Minute}, Tasks: tasks,
	})
	require.NoError(e, err)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.Equal(e, len(tasks) == 0, last)
}

// planned creates a job and takes it to its planned encode tasks, all but those with After ready.
func (e *env) planned(w worker, tasks ...pipeline.NewTask) pipeline.Job {
	e.Helper()

	j := e.job()
	l := e.claimOne(w)
	require.Equal(e, j.ID, l.Job.ID)
	e.plan(w, l, tasks...)

	return e.get(j.ID)
}

// finish finishes an encode task.
func (e *env) finish(w worker, ref pipeline.LeaseRef) (pipeline.Verdict, bool) {
	e.Helper()

	v, last, err := e.store.FinishTask(e.ctx(), pipeline.TaskResult{Ref: ref, WorkerID: w.id, Result: encoded()})
	require.NoError(e, err)

	return v, last
}

func encoded() *media.EncodeResult {
	return &media.EncodeResult{Renditions: []media.EncodedRendition{{
		Result:   media.RenditionResult{Name: "720p", Codecs: "avc1.64001f", Width: 1280, Height: 720, Duration: time.Minute},
		Segments: []media.EncodedObject{{Name: "720p/00000.m4s", SizeBytes: 1000, Duration: 4 * time.Second}},
	}}}
}

func (e *env) fail(w worker, ref pipeline.LeaseRef, class pipeline.FaultClass, reason pipeline.Reason) pipeline.Verdict {
	e.Helper()

	v, err := e.store.FailTask(e.ctx(), pipeline.TaskFault{
		Ref: ref, WorkerID: w.id, Class: class, Retry: policy(),
		Failure: pipeline.Failure{Reason: reason, Message: "it went wrong: 100 %"},
	})
	require.NoError(e, err)

	return v
}

// policy is the default without chance.
func policy() pipeline.RetryPolicy {
	p := pipeline.DefaultRetryPolicy()
	p.Jitter = 0

	return p
}

func (e *env) release(w worker, ref pipeline.LeaseRef) pipeline.Verdict {
	e.Helper()

	v, err := e.store.ReleaseTask(e.ctx(), w.id, ref)
	require.NoError(e, err)

	return v
}

func (e *env) renew(w worker, rs ...pipeline.Renewal) []pipeline.LeaseRef {
	e.Helper()

	renewed, err := e.store.RenewLeases(e.ctx(), w.id, leaseFor, rs)
	require.NoError(e, err)

	return renewed.Lost
}

// sweepBy is what a replica that sweeps asks for.
func sweepBy(replica string) pipeline.SweepRequest {
	return pipeline.SweepRequest{Replica: replica, LeaderTTL: leadFor, Lease: leaseFor, Retry: policy()}
}

func (e *env) sweep() pipeline.Swept {
	e.Helper()

	s, err := e.store.Sweep(e.ctx(), sweepBy(replica))
	require.NoError(e, err)

	return s
}

// pass lets time pass under a control plane that sweeps, and returns what the sweeps did.
func (e *env) pass(d time.Duration) pipeline.Swept {
	e.Helper()

	sum := e.sweep()

	for d > 0 {
		step := min(d, leaseFor/4)
		e.advance(e.T, step)
		d -= step

		s := e.sweep()
		sum.Requeued += s.Requeued
		sum.Dead += s.Dead
		sum.Woken += s.Woken
		sum.Duties = append(sum.Duties, s.Duties...)
		sum.NextDue = s.NextDue
	}

	return sum
}

// refused requires an error with a reason.
func (e *env) refused(reason pipeline.Reason, err error) {
	e.Helper()

	require.Error(e, err)

	var refusal *pipeline.Error

	require.ErrorAs(e, err, &refusal)
	require.Equal(e, reason, refusal.Reason, "%v", err)
	require.NotEmpty(e, refusal.Message)
}

// complete publishes a job.
func (e *env) complete(id string, run int) bool {
	e.Helper()

	ok, err := e.store.CompleteJob(e.ctx(), id, run, published())
	require.NoError(e, err)

	return ok
}

func published() []media.Output {
	return []media.Output{{
		Name: "hls", Kind: media.KindHLS, Entry: "master.m3u8", SizeBytes: 1000, Duration: time.Minute,
		Objects:    []media.OutputObject{{Name: "master.m3u8", Key: "out/public/default/job/hls/master.m3u8", SizeBytes: 500}},
		Renditions: []media.RenditionResult{{Name: "720p", Width: 1280, Height: 720}},
	}}
}

// completed takes a new job to its end.
func (e *env) completed(w worker) pipeline.Job {
	e.Helper()

	j := e.planned(w, encode(1))
	l := e.claimOne(w)
	v, last := e.finish(w, l.Ref)
	require.Equal(e, pipeline.VerdictAccepted, v)
	require.True(e, last)
	require.True(e, e.complete(j.ID, 1))

	return e.get(j.ID)
}

// failed takes a new job to FAILED.
func (e *env) failed(w worker) pipeline.Job {
	e.Helper()

	j := e.job()
	l := e.claimOne(w)
	require.Equal(e, pipeline.VerdictAccepted, e.fail(w, l.Ref, pipeline.FaultInput, pipeline.ReasonInputNotMedia))

	return e.get(j.ID)
}
