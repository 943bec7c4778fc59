package modeltest

import (
	"context"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	mostAlive = 7 // jobs; more cost time and find nothing more
	keyFor    = time.Minute
	goodSize  = 1000
)

// comesAgain makes a call that was made before: it was delayed on the way, or its caller is slow to ask again.
func (w *world) comesAgain(t *rapid.T) {
	if len(w.history) == 0 {
		t.Skip()
	}

	recent := w.history[max(0, len(w.history)-20):]
	c := recent[rapid.IntRange(0, len(recent)-1).Draw(t, "call")]
	if w.gone[c.makes] {
		t.Skip() // its id came from a caller that had its answer
	}

	_, _, err := w.once(c)
	t.Logf("again: %s: %v", c.verb, err)
}

// learn remembers what an answer tells.
func (w *world) learn(answer any, err error) {
	if err != nil {
		return
	}

	switch a := answer.(type) {
	case pipeline.Job:
		w.remember(&w.jobs, a.ID)
	case pipeline.Upload:
		w.remember(&w.uploads, a.ID)
		w.remember(&w.jobs, a.JobID)
	case claimed:
		for _, l := range a.Leases {
			w.leases = append(w.leases, given{a.Worker, l})
		}
	case attached:
		w.sessions = append(w.sessions, session{a.Worker, a.Session})
	case pipeline.Swept:
		w.duties = append(w.duties, a.Duties...)
	}
}

func (w *world) remember(list *[]string, id string) {
	if !slices.Contains(*list, id) {
		*list = append(*list, id)
	}
}

// admission draws the terms of a create. A key has mostly one request.
func admission(t *rapid.T) pipeline.Admission {
	return pipeline.Admission{
		IdempotencyKey: rapid.SampledFrom([]string{"", "", "k1", "k2"}).Draw(t, "key"),
		Fingerprint:    rapid.SampledFrom([]string{"f1", "f1", "f1", "f 2"}).Draw(t, "fingerprint"),
		KeyTTL:         keyFor,
		WaitingLimit:   rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "waiting limit"),
	}
}

// newJob draws a job of an id.
func (w *world) newJob(t *rapid.T, id string) pipeline.Job {
	if len(w.last.Jobs) >= mostAlive {
		t.Skip()
	}

	return pipeline.Job{
		ID: id, Project: rapid.SampledFrom(projects()).Draw(t, "project"),
		Priority: rapid.SampledFrom([]int{-100, 0, 0, 0, 1, 100}).Draw(t, "priority"),
		Spec:     media.Spec{Preset: "hls-adaptive"}, Labels: map[string]string{"for": id},
		Source: pipeline.Source{ObjectKey: "in/" + id, SizeBytes: goodSize, ETag: "etag", Filename: "a clip.mp4"},
	}
}

func probe() pipeline.NewTask { return pipeline.NewTask{Kind: pipeline.KindProbe} }

func (w *world) createJob(t *rapid.T) {
	j, a := w.newJob(t, w.id("j")), admission(t)

	if len(w.uploads) > 0 && rapid.Bool().Draw(t, "of an upload") {
		j.Source.UploadID = rapid.SampledFrom(w.uploads).Draw(t, "upload")
		j.Source.ObjectKey = "in/" + j.Source.UploadID
	}

	_, _ = w.do(call{"CreateJob", j.ID, func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.CreateJob(ctx, j, probe(), a)

		return got, got.ID, err
	}})
}

func (w *world) createUpload(t *rapid.T) {
	j, a := w.newJob(t, w.id("j")), admission(t)
	u := pipeline.Upload{ID: w.id("u"), JobID: j.ID, Project: j.Project, Filename: "a clip.mp4", SizeBytes: goodSize}
	u.ObjectKey = "in/" + u.ID
	j.Source = pipeline.Source{ObjectKey: u.ObjectKey, UploadID: u.ID}
	ttl := rapid.SampledFrom([]time.Duration{30 * time.Second, 10 * time.Minute}).Draw(t, "ttl")

	_, _ = w.do(call{"CreateUpload", j.ID, func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.CreateUpload(ctx, u, j, ttl, a)

		return got, got.ID, err
	}})
}

// upload draws one that was made, or one that never was.
func (w *world) upload(t *rapid.T) string {
	return rapid.SampledFrom(slices.Concat(w.uploads, []string{"u-none"})).Draw(t, "upload")
}

func (w *world) completeUpload(t *rapid.T) {
	id := w.upload(t)

	_, _ = w.do(call{"CompleteUpload", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.CompleteUpload(ctx, id, goodSize, "etag of "+id, probe())

		return got, got, err
	}})
}

func (w *world) endUpload(t *rapid.T) {
	id := w.upload(t)
	by := rapid.SampledFrom([]pipeline.UploadTransition{
		pipeline.UploadAbort, pipeline.UploadExpire, pipeline.UploadFail,
	}).Draw(t, "by")

	_, _ = w.do(call{"EndUpload", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.EndUpload(ctx, id, by, pipeline.Failure{Reason: pipeline.ReasonUploadExpired, Message: "it is over: 100 %"})

		return got, got, err
	}})
}

// job draws one that was made, or one that never was.
func (w *world) job(t *rapid.T) string {
	return rapid.SampledFrom(slices.Concat(w.jobs, []string{"j-none"})).Draw(t, "job")
}

func (w *world) cancelJob(t *rapid.T) {
	id := w.job(t)

	_, _ = w.do(call{"CancelJob", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.CancelJob(ctx, id)

		return got, got, err
	}})
}

func (w *world) retryJob(t *rapid.T) {
	id, run := w.job(t), rapid.IntRange(1, 2).Draw(t, "run")
	if j, ok := w.last.Jobs[id]; ok && rapid.Bool().Draw(t, "the newest run") {
		run = j.Run
	}

	limit := rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(t, "waiting limit")

	_, _ = w.do(call{"RetryJob", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.RetryJob(ctx, id, run, probe(), limit)

		return got, got, err
	}})
}

func (w *world) deleteJob(t *rapid.T) {
	id := w.job(t)

	_, _ = w.do(call{"DeleteJob", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		return nil, "deleted", s.DeleteJob(ctx, id)
	}})
}

func (w *world) timePasses(t *rapid.T) {
	w.pass(rapid.SampledFrom([]time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 11 * time.Second, leaseFor, leaseFor + time.Millisecond,
		time.Minute, 7 * time.Minute, retention,
	}).Draw(t, "time"))
}

func (w *world) timePassesSlowly(t *rapid.T) {
	w.pass(time.Duration(rapid.IntRange(1, 1500).Draw(t, "ms")) * time.Millisecond)
}
