package services_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/job"
)

// watched collects what a watch says, until it ends.
type watched struct {
	t        *testing.T
	messages chan *tcoderv1.WatchJobResponse
	failure  error // once messages is closed
	cancel   context.CancelFunc
}

// watch opens a watch that ends with the test.
func (p *plane) watch(id string, after uint64) *watched {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	w := &watched{t: p.t, messages: make(chan *tcoderv1.WatchJobResponse, 10_000), cancel: cancel}
	stream, err := p.job.WatchJob(ctx, &tcoderv1.WatchJobRequest{JobId: id, AfterSequence: after})
	require.NoError(p.t, err)
	go func() {
		defer close(w.messages)
		for stream.Receive() {
			w.messages <- stream.Msg()
		}
		w.failure = stream.Err()
		_ = stream.Close()
	}()
	p.t.Cleanup(func() {
		cancel()
		for range w.messages {
		}
	})

	return w
}

// next returns the next message; nil at the end.
func (w *watched) next() *tcoderv1.WatchJobResponse {
	w.t.Helper()
	select {
	case m := <-w.messages:
		return m
	case <-time.After(patience):
		require.Fail(w.t, "the watch says nothing")

		return nil
	}
}

// event returns the next message that tells an event.
func (w *watched) event() *tcoderv1.WatchJobResponse {
	w.t.Helper()
	for {
		m := w.next()
		require.NotNil(w.t, m, "the watch ended")
		if m.GetEvent() != nil {
			return m
		}
	}
}

func (w *watched) all() []*tcoderv1.WatchJobResponse {
	w.t.Helper()
	var all []*tcoderv1.WatchJobResponse
	for m := w.next(); m != nil; m = w.next() {
		all = append(all, m)
	}

	return all
}

// err returns how the watch ended, waiting for it.
func (w *watched) err() error {
	w.t.Helper()
	w.all()

	return w.failure
}

// types renders the events among messages: `2 QUEUED`.
func types(messages []*tcoderv1.WatchJobResponse) []string {
	var list []string
	for _, m := range messages {
		if e := m.GetEvent(); e != nil {
			list = append(list, fmt.Sprintf("%d %s", e.GetSequence(), strings.TrimPrefix(e.GetType().String(), "JOB_EVENT_TYPE_")))
		}
	}

	return list
}

// A watch tells the job at once, then every event with the job as it is then,
// and ends after the event that ended the job, in every protocol.
func TestWatchJob(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	for protocol, opts := range protocols() {
		p.connect(opts...)
		id := p.newJob().GetId()
		w := p.watch(id, 0)
		snapshot := w.next()
		require.Nil(t, snapshot.GetEvent(), protocol)
		require.Equal(t, tcoderv1.JobState_JOB_STATE_PENDING, snapshot.GetJob().GetState())
		require.Len(t, snapshot.GetJob().GetTasks(), 1)

		p.planned()
		var got []*tcoderv1.WatchJobResponse
		for len(types(got)) < 4 {
			got = append(got, w.event())
		}
		require.Equal(t, []string{"3 STARTED", "4 TASK_LEASED", "5 TASK_DONE", "6 PLANNED"}, types(got))
		require.NotNil(t, got[3].GetJob().GetPlan())
		worker, l := p.claim()
		require.Equal(t, l.Ref.TaskID, w.event().GetEvent().GetTaskId())
		p.finish(worker, l)
		rest := w.all()
		require.NoError(t, w.err())
		last := rest[len(rest)-1]
		require.Equal(t, tcoderv1.JobEventType_JOB_EVENT_TYPE_COMPLETED, last.GetEvent().GetType())
		require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, last.GetJob().GetState())
	}
}

// A client that comes back with the sequence it has seen gets all events
// after it, and only those; a watch of an ended job ends at once.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	id := p.newJob().GetId()
	p.planned()
	worker, l := p.claim()
	p.finish(worker, l)
	events, err := p.store.JobEvents(t.Context(), id, 0)
	require.NoError(t, err)
	var all []string
	for _, e := range events {
		all = append(all, fmt.Sprintf("%d %s", e.Sequence, e.Type))
	}
	for after := range all {
		w := p.watch(id, uint64(after))
		messages := w.all()
		require.NoError(t, w.err())
		require.Nil(t, messages[0].GetEvent())
		require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, messages[0].GetJob().GetState())
		if after == 0 {
			require.Len(t, messages, 1, "0 means from now on")
		} else {
			require.Equal(t, all[after:], types(messages))
		}
	}
	require.Len(t, p.watch(id, 9999).all(), 1)
}

// A retried job's old end doesn't end the watch of its new run.
func TestWatchOverARetry(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	id := p.newJob().GetId()
	_, err := p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
	require.NoError(t, err)
	_, err = p.job.RetryJob(t.Context(), &tcoderv1.RetryJobRequest{JobId: id})
	require.NoError(t, err)
	w := p.watch(id, 1)
	seen := []string{}
	for len(seen) == 0 || !strings.HasSuffix(seen[len(seen)-1], "RETRIED") {
		seen = append(seen, types([]*tcoderv1.WatchJobResponse{w.event()})...)
	}
	require.Contains(t, strings.Join(seen, ","), "CANCELED")
	_, err = p.job.CancelJob(t.Context(), &tcoderv1.CancelJobRequest{JobId: id})
	require.NoError(t, err)
	rest := types(w.all())
	require.True(t, strings.HasSuffix(rest[len(rest)-1], "CANCELED"), rest)
	require.NoError(t, w.err())
}

// progress reports the share of a leased task that is done.
func (p *plane) progress(worker string, l pipeline.Lease, fraction float64) {
	p.t.Helper()
	renewed, err := p.store.RenewLeases(p.t.Context(), worker, lease, []pipeline.Renewal{{
		Ref: l.Ref, Fraction: fraction, Progress: pipeline.Progress{MediaTime: time.Duration(fraction * float64(time.Minute)), Speed: 2},
	}})
	require.NoError(p.t, err)
	require.Empty(p.t, renewed.Lost)
}

// Progress comes at most four times a second, however often it changes, never
// falls, and the newest always comes. It is that of the job, not of the task.
func TestWatchProgress(t *testing.T) {
	t.Parallel()
	p := start(t, options{})
	id := p.newJob().GetId()
	p.planned()
	worker, l := p.claim()
	w := p.watch(id, 0)
	require.NotNil(t, w.next())
	began := time.Now()
	for i := 1; i <= 100; i++ {
		p.progress(worker, l, float64(i)/200)
	}
	count, last := 0, 0.0
	var told *tcoderv1.Progress
	for last < 49.9 {
		m := w.next()
		require.NotNil(t, m)
		require.Nil(t, m.GetEvent())
		require.GreaterOrEqual(t, m.GetJob().GetProgress().GetPercent(), last)
		told = m.GetJob().GetProgress()
		last = told.GetPercent()
		count++
	}
	require.LessOrEqual(t, count, 2+int(time.Since(began)/(250*time.Millisecond)))
	require.InDelta(t, 50, last, 0.1)
	require.Equal(t, 5*time.Second, told.GetMediaTime().AsDuration(), "of 10 s")
	require.Zero(t, told.GetSpeed(), "it has only begun")
	p.finish(worker, l)
	messages := w.all()
	require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, messages[len(messages)-1].GetJob().GetState())
}

// A client that reads slowly, or not for a while, misses progress but no event.
func TestWatchSlowReader(t *testing.T) {
	t.Parallel()
	p := start(t, options{job: job.Config{ProgressInterval: time.Millisecond}})
	id := p.newJob().GetId()
	p.planned()
	worker, l := p.claim()
	// HTTP/1.1, with a small window and a reader that doesn't read.
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	p.h2 = p.h1
	p.connect()
	stream, err := p.job.WatchJob(ctx, &tcoderv1.WatchJobRequest{JobId: id, AfterSequence: 1})
	require.NoError(t, err)
	for i := 1; i <= 2000; i++ {
		p.progress(worker, l, float64(i)/4000)
	}
	p.finish(worker, l)
	var messages []*tcoderv1.WatchJobResponse
	for stream.Receive() {
		messages = append(messages, stream.Msg())
	}
	require.NoError(t, stream.Err())
	require.NoError(t, stream.Close())
	events, err := p.store.JobEvents(t.Context(), id, 1)
	require.NoError(t, err)
	require.Len(t, types(messages), len(events))
}

// A live job is told now and then though nothing happens, so that a notice
// that got lost costs time alone, and a quiet stream isn't taken for a dead one.
func TestWatchRefreshes(t *testing.T) {
	t.Parallel()
	p := start(t, options{job: job.Config{WatchRefresh: 30 * time.Millisecond}})
	w := p.watch(p.newJob().GetId(), 0)
	for range 3 {
		require.Nil(t, w.next().GetEvent())
	}
}

// A watch ends when its client leaves, and when the server stops: then with an
// error that tells the client to come back.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	p := start(t, options{job: job.Config{WatchRefresh: 50 * time.Millisecond}})
	live := p.watch(p.newJob().GetId(), 0)
	require.NotNil(t, live.next())
	canceled := p.watch(p.newJob().GetId(), 0)
	require.NotNil(t, canceled.next())
	canceled.cancel()
	require.Equal(t, connect.CodeCanceled, connect.CodeOf(canceled.err()))
	require.NoError(t, p.stop())
	err := live.err()
	detail := refused(t, err, connect.CodeUnavailable, tcoderv1.ErrorReason_ERROR_REASON_SERVER_DRAINING)
	require.NotNil(t, detail.GetRetryAfter())
}
