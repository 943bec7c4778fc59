package redisstore

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// damaged is a store with a worker that holds both encodes of job j, and the probes of k0 to k2.
type damaged struct {
	*Store

	t       *testing.T
	url     string
	tag     string
	encodes []pipeline.LeaseRef
	probes  []pipeline.LeaseRef
}

func newDamaged(t *testing.T) *damaged {
	t.Helper()

	url, tag := redistest.New(t)
	d := &damaged{Store: openStore(t, url, tag), t: t, url: url, tag: tag}
	session, _, err := d.AttachWorker(t.Context(), pipeline.Worker{ID: "w", Slots: 9}, time.Minute)
	require.NoError(t, err)
	d.sweep()

	create := func(id string) {
		_, err := d.CreateJob(t.Context(), projectJob("p", id), pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
		require.NoError(t, err)
	}
	claim := func(request string) (refs []pipeline.LeaseRef) {
		got, err := d.ClaimTasks(t.Context(), pipeline.Claim{
			RequestID: request, WorkerID: "w", Session: session, Max: 9, Lease: time.Minute, RunningLimit: 9,
		})
		require.NoError(t, err)

		for _, l := range got.Leases {
			refs = append(refs, l.Ref)
		}

		return refs
	}

	create("j")

	encode := pipeline.NewTask{Kind: pipeline.KindEncode, Output: "hls", Weight: 1}
	_, _, err = d.FinishTask(t.Context(), pipeline.TaskResult{Ref: claim("1")[0], WorkerID: "w", Tasks: []pipeline.NewTask{encode, encode}})
	require.NoError(t, err)

	d.encodes = claim("2")
	require.Len(t, d.encodes, 2)

	for n := range 3 {
		create(fmt.Sprint("k", n))
	}

	d.probes = claim("3")
	require.Len(t, d.probes, 3)
	require.Equal(t, "5", d.running())

	return d
}

// running is how many leases of the project count.
func (d *damaged) running() string {
	n, err := d.client.HGet(d.t.Context(), d.keys.prefix+"turns", "rp").Result()
	require.NoError(d.t, err)

	return n
}

func (d *damaged) sweep() pipeline.Swept {
	d.t.Helper()

	swept, err := d.Sweep(d.t.Context(), pipeline.SweepRequest{
		Replica: "r", LeaderTTL: time.Minute, Lease: time.Minute, Retry: pipeline.RetryPolicy{MaxLosses: 1}, Retention: 24 * time.Hour,
	})
	require.NoError(d.t, err)

	return swept
}

func (d *damaged) state(id string) pipeline.JobState {
	d.t.Helper()

	job, err := d.GetJob(d.t.Context(), id)
	require.NoError(d.t, err)

	return job.State
}

// renew renews leases, and returns those that are lost.
func (d *damaged) renew(refs []pipeline.LeaseRef) []pipeline.LeaseRef {
	d.t.Helper()

	renewals := make([]pipeline.Renewal, len(refs))
	for i, ref := range refs {
		renewals[i].Ref = ref
	}

	renewed, err := d.RenewLeases(d.t.Context(), "w", time.Minute, renewals)
	require.NoError(d.t, err)

	return renewed.Lost
}

// lose lets a lease pass in which nothing is heard of the worker, but for what f says.
func (d *damaged) lose(f func()) {
	d.t.Helper()

	for range 5 {
		require.NoError(d.t, d.AdvanceClock(d.t.Context(), 15*time.Second))
		f()
		d.sweep()
	}
}

// TestBrokenSibling guarantees that a task whose record, or whose list of
// attempts, can't be read keeps nobody from ending its job, by hand or because
// another task died, and isn't counted as running any more.
func TestBrokenSibling(t *testing.T) {
	t.Parallel()

	record := func(d *damaged) error {
		return d.client.Set(t.Context(), d.keys.prefix+"t:j-00002", "\x02\x00cut", 0).Err()
	}
	attempts := func(d *damaged) error { return d.client.HSet(t.Context(), d.keys.more("j"), "a1", "[{").Err() }

	for name, damage := range map[string]func(*damaged) error{"record": record, "attempts": attempts} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			canceled := newDamaged(t)
			require.NoError(t, damage(canceled))

			job, err := canceled.CancelJob(t.Context(), "j")
			require.NoError(t, err)
			require.Equal(t, pipeline.JobCanceled, job.State)
			require.Equal(t, "3", canceled.running())

			dead := newDamaged(t)
			require.NoError(t, damage(dead))
			dead.lose(func() {})
			require.Equal(t, pipeline.JobFailed, dead.state("j"))
			require.Equal(t, pipeline.JobFailed, dead.state("k0"), "the sweeper goes on")
			require.NotContains(t, redistest.Elements(t, dead.url, dead.tag)[dead.tag+":turns"], "rp")
		})
	}
}

// TestSetAsideEndsAttempts guarantees that what workers say of a job that was
// set aside counts for nothing: it stays FAILED, and nothing of it stays once it
// is deleted.
func TestSetAsideEndsAttempts(t *testing.T) {
	t.Parallel()

	d := newDamaged(t)
	require.NoError(t, d.client.Set(t.Context(), d.keys.plan("j"), "{", 0).Err())

	_, kept, err := d.AttachWorker(t.Context(), pipeline.Worker{ID: "w", Slots: 9, Held: append(d.encodes, d.probes...)}, time.Minute)
	require.NoError(t, err)
	require.Len(t, kept, 3)
	require.Equal(t, pipeline.JobFailed, d.state("j"))

	v, _, err := d.FinishTask(t.Context(), pipeline.TaskResult{Ref: d.encodes[0], WorkerID: "w", Outputs: []media.Output{{}}})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictStale, v)
	v, err = d.ReleaseTask(t.Context(), "w", d.encodes[1])
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictStale, v)
	require.Equal(t, "3", d.running())
	require.Equal(t, pipeline.JobFailed, d.state("j"))

	require.NoError(t, d.DeleteJob(t.Context(), "j"))

	for key, elements := range redistest.Elements(t, d.url, d.tag) {
		require.NotRegexp(t, `:j(-\d+)?$`, key)
		require.False(t, strings.HasPrefix(key, d.tag+":i:") && slices.Contains(elements, "j"), key)
	}
}

// TestBrokenRenewal guarantees that a worker keeps its other leases though the
// record of one can't be read.
func TestBrokenRenewal(t *testing.T) {
	t.Parallel()

	for key, lost := range map[string]int{"j:j": 2, "t:j-00001": 1} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()

			d := newDamaged(t)
			require.NoError(t, d.client.Set(t.Context(), d.keys.prefix+key, "\x01p\x00\x02cut short", 0).Err())

			d.lose(func() {
				gone := d.renew(append(d.probes, d.encodes...))
				require.Subset(t, d.encodes, gone)
				require.GreaterOrEqual(t, len(gone), lost)
			})

			require.Equal(t, pipeline.JobFailed, d.state("j"))
			require.Equal(t, pipeline.JobRunning, d.state("k0"))
			require.Equal(t, "3", d.running())
		})
	}
}

// TestBrokenUpload guarantees that an upload ends though the record of its job
// can't be read, and the job with it.
func TestBrokenUpload(t *testing.T) {
	t.Parallel()

	complete := func(d *damaged) error {
		_, err := d.CompleteUpload(t.Context(), "u", 1, "e", pipeline.NewTask{Kind: pipeline.KindProbe})
		require.Equal(t, pipeline.ReasonUploadAborted, pipeline.ReasonOf(err))

		return nil
	}
	abort := func(d *damaged) error {
		_, err := d.EndUpload(t.Context(), "u", pipeline.UploadAbort, pipeline.Failure{Reason: pipeline.ReasonCanceled, Message: "no more"})

		return err
	}

	for name, end := range map[string]func(*damaged) error{"complete": complete, "abort": abort} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			d := newDamaged(t)
			upload := pipeline.Upload{ID: "u", Project: "p", JobID: "up"}
			_, err := d.CreateUpload(t.Context(), upload, projectJob("p", "up"), time.Hour, pipeline.Admission{})
			require.NoError(t, err)
			require.NoError(t, d.client.Set(t.Context(), d.keys.job("up"), "\x01p\x00\x02cut short", 0).Err())

			for range 2 {
				require.NoError(t, end(d))
			}

			d.sweep()
			require.Equal(t, pipeline.JobFailed, d.state("up"))

			got, err := d.GetUpload(t.Context(), "u")
			require.NoError(t, err)
			require.Equal(t, pipeline.UploadAborted, got.State)
			require.NotContains(t, redistest.Elements(t, d.url, d.tag), d.tag+":i:p:UPLOADING")
		})
	}
}

// TestLostSiblingCountsOnce guarantees that a lease whose task's record is gone
// counts once less, though its job ends in the sweep that finds it.
func TestLostSiblingCountsOnce(t *testing.T) {
	t.Parallel()

	d := newDamaged(t)
	require.NoError(t, d.client.Del(t.Context(), d.keys.prefix+"t:j-00001").Err())

	d.lose(func() { d.renew(d.probes) })
	require.Equal(t, pipeline.JobFailed, d.state("j"))
	require.Equal(t, "3", d.running())
}
