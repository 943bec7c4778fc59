package pool_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/pool"
)

// TestProjectLimits: a project's own limits are what its workers are told and
// its sources are held to, and a source beyond one fails by its name and value.
func TestProjectLimits(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t, func(cfg *pool.Config, _ *pool.Deps) {
		cfg.ProjectLimits = map[string]media.Limits{pipeline.DefaultProject: {MaxDuration: 9 * time.Second}}
	})
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	probe := w.assignment()
	require.Equal(t, 9*time.Second, probe.GetProbe().GetLimits().GetMaxDuration().AsDuration())
	require.Equal(t, accepted, w.report(probed(probe.GetLease())))
	ended := c.job(t, job.ID)
	require.Equal(t, pipeline.JobFailed, ended.State)
	require.Equal(t, pipeline.ReasonInputLimitExceeded, ended.Failure.Reason)
	require.Equal(t, "the source lasts 10s, the limit is 9s", ended.Failure.Message)
}
