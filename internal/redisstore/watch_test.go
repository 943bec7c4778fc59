package redisstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// TestMerge guarantees that a reader who was slow learns the newest event, the
// latest progress, and above all that it has to read again.
func TestMerge(t *testing.T) {
	t.Parallel()

	slow, fast := &pipeline.Progress{Percent: 1}, &pipeline.Progress{Percent: 2}
	lost := pipeline.JobNotice{}

	for _, c := range []struct{ old, latest, want pipeline.JobNotice }{
		{pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Sequence: 4}, pipeline.JobNotice{Sequence: 4}},
		{pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Run: 1, Progress: fast}, pipeline.JobNotice{Sequence: 3, Run: 1, Progress: fast}},
		{pipeline.JobNotice{Run: 1, Progress: slow}, pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Sequence: 3, Run: 1, Progress: slow}},
		{pipeline.JobNotice{Run: 1, Progress: slow}, pipeline.JobNotice{Run: 1, Progress: fast}, pipeline.JobNotice{Run: 1, Progress: fast}},
		{pipeline.JobNotice{Run: 1, Progress: slow}, lost, lost},
		{lost, pipeline.JobNotice{Run: 1, Progress: fast}, lost},
		{lost, pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Sequence: 3}},
	} {
		require.Equal(t, c.want, merge(c.old, c.latest))
	}
}

// TestUnknownPayload guarantees that a notice of another version isn't lost.
func TestUnknownPayload(t *testing.T) {
	t.Parallel()

	w := &jobWatcher{out: make(chan pipeline.JobNotice, 1)}
	for _, payload := range []string{"not JSON", "p 12.5 4000 1 25 0"} {
		w.notify(payload)
		require.Equal(t, pipeline.JobNotice{}, <-w.out)
	}
}

// TestLeftWhileWatched guarantees that a channel that was left for one watcher
// as another came is watched again, and that the other reads again what it may
// have missed.
func TestLeftWhileWatched(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store, err := New(Config{URL: url, Tag: tag})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	_, err = store.CreateJob(t.Context(), pipeline.Job{ID: "a", Project: pipeline.DefaultProject},
		pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)

	notices, err := store.WatchJob(t.Context(), "a")
	require.NoError(t, err)

	receive := func() pipeline.JobNotice {
		select {
		case n := <-notices:
			return n
		case <-time.After(15 * time.Second):
			require.Fail(t, "no notice")

			return pipeline.JobNotice{}
		}
	}

	store.hub.mu.Lock()
	conn := store.hub.conn
	store.hub.mu.Unlock()
	require.NoError(t, conn.Unsubscribe(t.Context(), store.keys.jobChannel("a")))
	require.Equal(t, pipeline.JobNotice{}, receive())

	_, err = store.CancelJob(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, int64(3), receive().Sequence)
}
