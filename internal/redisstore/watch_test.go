package redisstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestMerge guarantees that a reader who was slow learns the newest event, the
// latest progress, and above all that it has to read again.
func TestMerge(t *testing.T) {
	t.Parallel()

	slow, fast := &pipeline.Progress{Percent: 1}, &pipeline.Progress{Percent: 2}
	lost := pipeline.JobNotice{}

	for _, c := range []struct{ old, latest, want pipeline.JobNotice }{
		{pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Sequence: 4}, pipeline.JobNotice{Sequence: 4}},
		{pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Progress: fast}, pipeline.JobNotice{Sequence: 3, Progress: fast}},
		{pipeline.JobNotice{Progress: slow}, pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Sequence: 3, Progress: slow}},
		{pipeline.JobNotice{Progress: slow}, pipeline.JobNotice{Progress: fast}, pipeline.JobNotice{Progress: fast}},
		{pipeline.JobNotice{Progress: slow}, lost, lost},
		{lost, pipeline.JobNotice{Progress: fast}, lost},
		{lost, pipeline.JobNotice{Sequence: 3}, pipeline.JobNotice{Sequence: 3}},
	} {
		require.Equal(t, c.want, merge(c.old, c.latest))
	}
}

// TestUnknownPayload guarantees that a notice of a newer version isn't lost.
func TestUnknownPayload(t *testing.T) {
	t.Parallel()

	w := &jobWatcher{out: make(chan pipeline.JobNotice, 1)}
	w.notify("not JSON")
	require.Equal(t, pipeline.JobNotice{}, <-w.out)
}
