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

// TestRefusedNeighbours guarantees that a task which says what the control plane
// refuses costs its neighbours nothing: a result is taken, URLs are signed, and
// whoever says nothing goes on.
func TestRefusedNeighbours(t *testing.T) {
	t.Parallel()

	for _, kind := range []worker.Transport{worker.TransportStream, worker.TransportSync} {
		for name, poison := range map[string]func(*celltest.Run){
			"a name that breaks a rule": func(run *celltest.Run) {
				go func() {
					_, _ = run.Sign(run.Context, []*tcoderv1.EncodedObject{{Name: "../x", SizeBytes: 1, ContentType: "video/mp4"}})
				}()
			},
			"progress of more than all": func(run *celltest.Run) {
				run.Progress(&tcoderv1.TaskProgress{Lease: run.Lease(), Fraction: 2})
			},
		} {
			t.Run(name+" by "+string(kind), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := celltest.New()
					c.Replica(t, "a")
					w := c.Worker(t, "w", []string{"a"}, transport(kind), slots(4))
					jobs := map[string]pipeline.Job{}

					for range 4 {
						job := c.Submit(t)
						jobs[job.ID] = job
					}

					probes, runs := make([]*celltest.Run, 4), make([]*celltest.Run, 4)

					for i := range probes {
						probes[i] = started(t, w)
					}

					for i, probe := range probes {
						probe.Finish(t)

						runs[i] = started(t, w)
					}

					pass(2 * time.Second)
					poison(runs[1])
					pass(500 * time.Millisecond) // it is refused: nothing is heard now

					signed := make(chan error, 1)

					go func() {
						_, err := runs[0].Sign(runs[0].Context, []*tcoderv1.EncodedObject{{Name: "360p/0.m4s", SizeBytes: 1, ContentType: "video/iso.segment"}})
						signed <- err
					}()
					go runs[2].Finish(t)

					pass(30 * time.Second)
					require.NoError(t, <-signed)

					encode := func(run *celltest.Run) []pipeline.Attempt {
						return attempts(t, c, jobs[strings.TrimSuffix(run.Lease().GetTaskId(), "-1")], 1)
					}
					require.NotNil(t, encode(runs[1])[0].Failure, "it ends")
					require.Equal(t, pipeline.ReasonWorkerIncompatible, encode(runs[1])[0].Failure.Reason)
					require.Equal(t, pipeline.OutcomeDone, encode(runs[2])[0].Outcome)

					for _, i := range []int{0, 3} {
						require.NoError(t, runs[i].Context.Err())
						require.Len(t, encode(runs[i]), 1)
					}
				})
			})
		}
	}
}
