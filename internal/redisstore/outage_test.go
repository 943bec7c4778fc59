package redisstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

const patience = 15 * time.Second

func newJob(id string) pipeline.Job {
	return pipeline.Job{ID: id, Project: pipeline.DefaultProject, Source: pipeline.Source{ObjectKey: "in/" + id}}
}

// TestOutage guarantees that a Redis that is killed and comes back with its
// data costs time alone: calls fail with the one reason meanwhile, scripts
// load again by themselves, and who watches is told to look again.
func TestOutage(t *testing.T) {
	t.Parallel()

	server := redistest.Start(t, redistest.Options{FsyncAlways: true})
	store, err := redisstore.New(redisstore.Config{URL: server.URL(), PoolSize: 4})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	ctx := t.Context()
	first := pipeline.NewTask{Kind: pipeline.KindProbe}
	_, err = store.CreateJob(ctx, newJob("a"), first, pipeline.Admission{})
	require.NoError(t, err)

	notices, err := store.WatchJob(ctx, "a")
	require.NoError(t, err)
	wakes, err := store.Wakes(ctx)
	require.NoError(t, err)

	server.Kill()

	require.NoError(t, store.Ready(ctx), "it has just answered")
	err = store.Ping(ctx)
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))
	err = store.Ready(ctx)
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))
	_, err = store.GetJob(ctx, "a")
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))
	_, err = store.GetUpload(ctx, "u")
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))

	server.Restart()

	var j pipeline.Job

	require.Eventually(t, func() bool {
		j, err = store.GetJob(ctx, "a")

		return err == nil
	}, patience, 10*time.Millisecond)
	require.Equal(t, pipeline.JobPending, j.State)
	require.NoError(t, store.Ready(ctx))

	select {
	case n := <-notices:
		require.Equal(t, pipeline.JobNotice{}, n)
	case <-time.After(patience):
		require.Fail(t, "the watcher of a job wasn't told")
	}

	missing := map[pipeline.Wake]bool{pipeline.WakeReady: true, pipeline.WakeDue: true, pipeline.WakeWorker: true, pipeline.WakePool: true}
	for len(missing) > 0 {
		select {
		case w := <-wakes:
			delete(missing, w)
		case <-time.After(patience):
			require.Fail(t, "not woken", "%v", missing)
		}
	}

	_, err = store.CancelJob(ctx, "a")
	require.NoError(t, err)

	select {
	case n := <-notices:
		require.Equal(t, int64(3), n.Sequence)
	case <-time.After(patience):
		require.Fail(t, "the watch isn't live again")
	}
}

// TestUnreachable guarantees a prompt, typed error from every kind of call,
// and nothing left running.
func TestUnreachable(t *testing.T) {
	t.Parallel()

	store, err := redisstore.New(redisstore.Config{URL: "unix:///nonexistent/redis.sock"})
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()

	_, err = store.PoolStats(ctx)
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))
	_, err = store.WatchJob(ctx, "a")
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))
	require.NoError(t, store.Close())
	_, err = store.Wakes(t.Context())
	require.Equal(t, pipeline.ReasonStateUnavailable, pipeline.ReasonOf(err))
	require.NoError(t, store.Close())
}

// TestCloseEndsWatches guarantees that a closed store closes its channels.
func TestCloseEndsWatches(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
	require.NoError(t, err)

	notices, err := store.WatchJob(t.Context(), "a")
	require.NoError(t, err)
	wakes, err := store.Wakes(t.Context())
	require.NoError(t, err)
	require.NoError(t, store.Close())

	_, open := <-notices
	require.False(t, open)

	_, open = <-wakes
	require.False(t, open)
}

// TestBadConfig guarantees that a URL isn't quoted in an error: it can hold a password.
func TestBadConfig(t *testing.T) {
	t.Parallel()

	for _, url := range []string{"", "http://user:secret@host", "redis://:secret@host:port:99/db/x"} {
		_, err := redisstore.New(redisstore.Config{URL: url})
		require.Error(t, err, url)
		require.NotContains(t, err.Error(), "secret")
	}
}

// TestTagsAreApart guarantees that deployments that share a Redis don't meet.
func TestTagsAreApart(t *testing.T) {
	t.Parallel()

	a, b := open(t), open(t)
	_, err := a.CreateJob(t.Context(), newJob("a"), pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	_, err = b.GetJob(t.Context(), "a")
	require.Equal(t, pipeline.ReasonJobNotFound, pipeline.ReasonOf(err))
}

// TestMemoryPerWaitingJob guarantees at most 1.0 KB of Redis for a job of one
// task and a spec of 300 bytes that waits, queues and indexes included.
func TestMemoryPerWaitingJob(t *testing.T) {
	t.Parallel()

	server := redistest.Start(t, redistest.Options{})
	store, err := redisstore.New(redisstore.Config{URL: server.URL()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	const jobs = 5000

	// Scripts and connections are not the jobs'.
	create := func(n int) {
		j := newJob(fmt.Sprintf("01J%023d", n))
		j.Source.ObjectKey = "in/default/" + j.ID + "/source"
		j.Labels = map[string]string{"note": fmt.Sprintf("%0150d", n)}
		_, err := store.CreateJob(t.Context(), j, pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
		require.NoError(t, err)
	}
	create(0)

	before := usedMemory(t, server.URL())
	for n := range jobs {
		create(n + 1)
	}

	perJob := (usedMemory(t, server.URL()) - before) / jobs
	t.Logf("%d bytes per waiting job", perJob)
	require.LessOrEqual(t, perJob, int64(1024))
}
