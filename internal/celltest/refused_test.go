package celltest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/worker"
)

// TestUnsayable guarantees that a result which can't be told ends its attempt,
// and the worker does other work, however it talks to its control plane and
// whoever finds out: the control plane, a proxy, or the worker itself.
func TestUnsayable(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		format string
		limit  int64 // of the proxy
	}{
		"larger than the control plane takes": {strings.Repeat("x", 17<<20), 0},
		"larger than a proxy takes":           {strings.Repeat("x", 2<<20), 1 << 20},
		"no bytes can be made of it":          {"a\xff", 0},
	} {
		for _, kind := range []worker.Transport{worker.TransportStream, worker.TransportSync} {
			if test.limit > 0 && kind == worker.TransportStream {
				continue // a proxy counts what a call says, and a stream says much
			}

			t.Run(name+" by "+string(kind), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := celltest.New()
					a := c.Replica(t, "a")
					c.Proxy(t, "front", "a", celltest.Proxy{Limit: test.limit})
					w := c.Worker(t, "w", []string{"front"}, transport(kind), slots(2))
					attached(t, "w", a)

					job, other := c.Submit(t), c.Submit(t)
					run, neighbour := started(t, w), started(t, w)

					if !strings.HasPrefix(run.Lease().GetTaskId(), job.ID) {
						job, other = other, job
					}

					run.Report(&tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Probe{Probe: &tcoderv1.ProbeResult{Format: test.format}}})
					pass(time.Minute)

					failed := attempts(t, c, job, 0)[0]
					require.NotNil(t, failed.Failure, "it ends")
					require.Equal(t, pipeline.ReasonWorkerIncompatible, failed.Failure.Reason)
					neighbour.Finish(t)
					pass(time.Second)
					require.Equal(t, pipeline.OutcomeDone, attempts(t, c, other, 0)[0].Outcome)
				})
			})
		}
	}
}
