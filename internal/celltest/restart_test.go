package celltest_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/worker"
)

// rolled is what a rolling restart under load did to the jobs.
type rolled struct {
	jobs     int
	slowest  time.Duration // of a job, from its creation to its end
	released int           // attempts whose assignment was lost on its way
}

// roll submits a job every few milliseconds, restarts one replica after the
// other meanwhile, and requires that every job completes and no attempt is
// charged or lost.
func roll(t *testing.T, c *celltest.Cell, connect func() pipeline.Store, transports ...worker.Transport) rolled {
	t.Helper()

	const (
		every  = 20 * time.Millisecond
		settle = 1500 * time.Millisecond // between two restarts
	)

	names := []string{"a", "b", "c"}
	replicas := make([]*celltest.Replica, len(names))

	for i, name := range names {
		replicas[i] = c.ReplicaOn(t, name, connect())
	}

	for i := range 6 {
		c.Worker(t, fmt.Sprintf("w%d", i), names, slots(4), transport(transports[i%len(transports)]), func(cfg *worker.Config) {
			cfg.Execute = celltest.Pace(40*time.Millisecond, 160*time.Millisecond)
		})
	}

	var (
		ids      []string
		stopping <-chan struct{}
		next     = time.After(settle)
	)

	tick := time.NewTicker(every)
	defer tick.Stop()

	for restarted := 0; restarted < len(names); {
		select {
		case <-tick.C:
			ids = append(ids, c.Submit(t).ID)
		case <-next:
			stopping = replicas[restarted].Terminate()
		case <-stopping:
			replicas[restarted] = c.ReplicaOn(t, names[restarted], connect())
			restarted++
			stopping, next = nil, time.After(settle)
		}
	}

	var done rolled

	for _, id := range ids {
		job := c.Ended(t, id)
		require.Equal(t, pipeline.JobCompleted, job.State)

		done.jobs++
		done.slowest = max(done.slowest, job.Times.Finished.Sub(job.Times.Created))

		for _, task := range job.Tasks {
			for _, attempt := range task.Attempts {
				require.False(t, attempt.Charged)
				require.Contains(t, []pipeline.Outcome{pipeline.OutcomeDone, pipeline.OutcomeReleased}, attempt.Outcome)

				if attempt.Outcome == pipeline.OutcomeReleased {
					done.released++
				}
			}
		}
	}

	t.Logf("%d jobs, the slowest took %s, %d assignments were lost on their way", done.jobs, done.slowest, done.released)

	return done
}

// TestRollingRestart guarantees, in fake time, that restarting every replica
// one after the other under load fails no job, loses no attempt, and holds no
// job up for more than a second.
func TestRollingRestart(t *testing.T) {
	t.Parallel()

	for name, transports := range map[string][]worker.Transport{
		"streams": {worker.TransportAuto}, "calls": {worker.TransportSync}, "both": {worker.TransportAuto, worker.TransportSync},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := celltest.New()
				done := roll(t, c, func() pipeline.Store { return c.Store }, transports...)
				require.Greater(t, done.jobs, 200)
				require.Less(t, done.slowest, 1200*time.Millisecond)
			})
		})
	}
}

// TestRollingRestartOnRedis guarantees the same in real time, on a real Redis,
// with a connection of its own for each life of a replica.
func TestRollingRestartOnRedis(t *testing.T) {
	t.Parallel()

	connect := connections(t)
	done := roll(t, celltest.On(connect()), connect, worker.TransportAuto)
	require.Greater(t, done.jobs, 50)
	require.Less(t, done.slowest, 5*time.Second, "a loaded machine adds to the second that it may be")
}

// connections returns a function that connects to one Redis.
func connections(t *testing.T) func() pipeline.Store {
	t.Helper()

	url, tag := redistest.New(t)

	return func() pipeline.Store {
		store, err := redisstore.New(redisstore.Config{URL: url, Tag: tag})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, store.Close()) })

		return store
	}
}

// TestStopDuringParts guarantees that a control plane which stops doesn't wait
// for an object store that begins an upload.
func TestStopDuringParts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := celltest.New()
		c.Out.Slow = time.Hour
		a := c.Replica(t, "a")
		w := c.Worker(t, "w", []string{"a"})
		c.Submit(t)
		started(t, w).Finish(t)

		run := started(t, w)
		go func() { _, _ = run.Parts(run.Context, largeFile(), &tcoderv1.PartsStep{}) }()

		pass(time.Second)

		now := time.Now()
		a.Stop()
		require.LessOrEqual(t, time.Since(now), 10*time.Second)
	})
}

// largeFile is one that a store may take in parts alone.
func largeFile() *tcoderv1.EncodedObject {
	return &tcoderv1.EncodedObject{Name: "720p.mp4", SizeBytes: 1000, ContentType: "video/mp4"}
}

// TestPushOnRedis guarantees that a task which somebody else made ready reaches
// an idle worker by Redis's word alone: all that a replica does by itself, it
// does every 15 seconds at most.
func TestPushOnRedis(t *testing.T) {
	t.Parallel()

	connect := connections(t)
	c := celltest.On(connect())
	holder := c.ReplicaOn(t, "holder", connect())
	c.ReplicaOn(t, "other", connect())

	w := c.Worker(t, "w", []string{"holder"})
	attached(t, "w", holder)

	var all []time.Duration

	for range 20 {
		now := time.Now()
		c.Submit(t)
		run := started(t, w)
		all = append(all, time.Since(now))
		run.Finish(t)
		started(t, w).Finish(t)
	}

	slices.Sort(all)
	t.Logf("submit to start, through Redis and the stream: median %s, longest %s", all[len(all)/2], all[len(all)-1])
	require.Less(t, all[len(all)-1], 3*time.Second)
}
