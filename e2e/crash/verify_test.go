package crash_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// verify asks the store whether anything was lost, done twice or left over.
func (c *cell) verify(t *testing.T, o *orders) {
	t.Helper()
	jobs, err := c.list(t.Context())
	require.NoError(t, err)
	taken := o.taken(t)
	require.Len(t, jobs, len(taken), "jobs of which no customer knows, or that are gone")
	named, accepted := map[string]bool{}, map[string]bool{}
	for _, listed := range jobs {
		require.True(t, taken[listed.ID])
		job, err := c.store.GetJob(t.Context(), listed.ID)
		require.NoError(t, err)
		c.verifyJob(t, job)
		for _, output := range job.Outputs {
			for _, object := range output.Objects {
				named[object.Key] = true
			}
		}
		for _, key := range acceptedKeys(job) {
			accepted[key] = true
		}
	}
	c.verifyObjects(t, named, accepted)
	c.verifyNothingLeft(t)
	requireNoProcess(t, c)
}

// verifyJob requires that a job completed once and each of its tasks ended once.
func (c *cell) verifyJob(t *testing.T, job pipeline.Job) {
	t.Helper()
	require.Equal(t, pipeline.JobCompleted, job.State, job.ID)
	events, err := c.store.JobEvents(t.Context(), job.ID, 0)
	require.NoError(t, err)
	count := map[pipeline.EventType]int{}
	done := map[string]int{}
	for i, e := range events {
		require.EqualValues(t, i+1, e.Sequence, "events of %s without gaps", job.ID)
		count[e.Type]++
		if e.Type == pipeline.EventTaskDone {
			done[e.TaskID]++
		}
	}
	require.Equal(t, 1, count[pipeline.EventCompleted], "completion events of %s", job.ID)
	require.Equal(t, pipeline.EventCompleted, events[len(events)-1].Type, job.ID)
	require.Equal(t, count[pipeline.EventFailed], count[pipeline.EventRetried], job.ID)
	require.Equal(t, count[pipeline.EventRetried]+1, job.Run, job.ID)
	for _, task := range job.Tasks {
		if task.Run == job.Run {
			require.Equal(t, pipeline.TaskDone, task.State, task.ID)
		}
		want := 0
		if task.State == pipeline.TaskDone {
			want = 1
		}
		require.Equal(t, want, done[task.ID], "ends of task %s", task.ID)
		ends := 0
		for _, attempt := range task.Attempts {
			if attempt.Outcome == pipeline.OutcomeDone {
				ends++
			}
		}
		require.Equal(t, want, ends, "attempts of task %s that were accepted", task.ID)
	}
}

// acceptedKeys are the objects of the results that were accepted in a job's
// last run. Outputs leave some out: chunks share the init segment of the first,
// and what a file is put together of is no output.
func acceptedKeys(job pipeline.Job) []string {
	var keys []string
	for _, task := range job.Tasks {
		_, index, ok := media.SplitTaskID(task.ID)
		if !ok || task.Result == nil || len(task.Attempts) == 0 {
			continue
		}
		last := task.Attempts[len(task.Attempts)-1].Number
		dir := media.OutputPrefix(job.Project, job.ID, task.Output) + media.AttemptDir(index, last) + "/"
		for _, rendition := range task.Result.Renditions {
			if rendition.InitSegment != nil {
				keys = append(keys, dir+rendition.InitSegment.Name)
			}
			for _, segment := range rendition.Segments {
				keys = append(keys, dir+segment.Name)
			}
		}
	}

	return keys
}

// verifyObjects requires that the bucket has what outputs name, and no more
// than what was accepted.
func (c *cell) verifyObjects(t *testing.T, named, accepted map[string]bool) {
	t.Helper()
	var surplus []string
	require.NoError(t, c.out.List(t.Context(), "out/", func(o objectstore.ObjectInfo) error {
		if !named[o.Key] && !accepted[o.Key] {
			surplus = append(surplus, o.Key)
		}
		delete(named, o.Key)

		return nil
	}))
	require.Empty(t, named, "objects that an output names and that aren't there")
	require.Empty(t, surplus, "objects that no output and no result names")
}

// elements are what the keys of the cell hold, by name without the tag.
func (c *cell) elements(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for key, elements := range redistest.Elements(t, c.redisURL, tag) {
		all[strings.TrimPrefix(key, tag+":")] = elements
	}

	return all
}

// verifyNothingLeft requires that the store keeps the records of jobs and
// nothing else: no lease, no queue entry, no count of what runs, no duty, no
// worker.
func (c *cell) verifyNothingLeft(t *testing.T) {
	t.Helper()
	all := c.elements(t)
	// What may stay: jobs (with tasks, events, spec, probe, plan, results, outputs
	// and summary), their index by state and by end, idempotency keys with their ends, the leader's notes, the layout, the
	// clock, how often workers attached, and whose turn it was last.
	for _, field := range all["turns"] {
		require.False(t, strings.HasPrefix(field, "r"), "leases of a project are still counted: %s", field)
	}
	maps.DeleteFunc(all, func(key string, _ []string) bool {
		prefix, _, _ := strings.Cut(key, ":")

		return slices.Contains([]string{"j", "t", "e", "x", "d", "b", "g", "r", "o", "s", "k"}, prefix) ||
			slices.Contains([]string{"i:default:COMPLETED", "ended", "sweep", "layout", "clock", "sessions", "turns", "past", "expiring"}, key)
	})
	require.Empty(t, all)
}

// requireNoProcess requires that no program of the cell runs.
func requireNoProcess(t *testing.T, c *cell) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err != nil || path == fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) {
			continue // it ended, or is this one
		}
		require.False(t, bytes.HasPrefix(text, []byte(self+"\x00")), "a worker is left: %s", path)
		require.NotContains(t, string(text), c.replicas[0].address, "a control plane is left")
	}
}
