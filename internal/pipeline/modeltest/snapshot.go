package modeltest

import (
	"math"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// snapshot is all that can be read of a store.
type snapshot struct {
	Jobs     map[string]pipeline.Job // those that are there
	Events   map[string][]pipeline.Event
	Streams  map[string]pipeline.Stream
	Uploads  map[string]pipeline.Upload
	Lists    map[string][]pipeline.Job // by project
	Workers  []pipeline.Worker
	Machines []pipeline.Machine
	Stats    pipeline.PoolStats
	Pool     pipeline.PoolView
}

// projects are those that a case works with.
func projects() []string { return []string{"a", "b", "c"} }

// read reads a store.
func (w *world) read(store pipeline.Store) *snapshot {
	w.Helper()

	s := &snapshot{
		Jobs: map[string]pipeline.Job{}, Events: map[string][]pipeline.Event{},
		Streams: map[string]pipeline.Stream{}, Uploads: map[string]pipeline.Upload{}, Lists: map[string][]pipeline.Job{},
	}

	for _, id := range w.jobs {
		j, err := store.GetJob(w.Context(), id)
		if err != nil {
			require.Equal(w, pipeline.ReasonJobNotFound, pipeline.ReasonOf(err))

			continue
		}

		s.Jobs[id] = tidy(j)

		if s.Events[id], err = store.JobEvents(w.Context(), id, 0); err != nil {
			w.Fatalf("events of job %s: %v", id, err)
		}

		s.Streams[id], err = store.ReadStream(w.Context(), id, 0, 0)
		require.NoError(w, err)
	}

	for _, id := range w.uploads {
		u, err := store.GetUpload(w.Context(), id)
		if err != nil {
			require.Equal(w, pipeline.ReasonUploadNotFound, pipeline.ReasonOf(err))

			continue
		}

		s.Uploads[id] = u
	}

	var err error

	for _, project := range projects() {
		s.Lists[project], err = store.ListJobs(w.Context(), pipeline.JobFilter{Project: project, Limit: 100})
		require.NoError(w, err)
	}

	s.Workers, err = store.ListWorkers(w.Context())
	require.NoError(w, err)
	s.Machines, err = store.ListMachines(w.Context())
	require.NoError(w, err)
	s.Stats, err = store.PoolStats(w.Context())
	require.NoError(w, err)
	s.Pool, err = store.ReadPool(w.Context())
	require.NoError(w, err)

	return s
}

// tidy makes equal what is equal to a reader: nothing is nothing, and Lua
// keeps 14 digits of a number.
func tidy(j pipeline.Job) pipeline.Job {
	j.Progress.Percent = math.Round(j.Progress.Percent*1e6) / 1e6

	if len(j.Outputs) == 0 {
		j.Outputs = nil
	}

	if len(j.Labels) == 0 {
		j.Labels = nil
	}

	for i := range j.Tasks {
		if len(j.Tasks[i].Attempts) == 0 {
			j.Tasks[i].Attempts = nil
		}
	}

	return j
}
