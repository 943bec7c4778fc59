package worker

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// run is a task that the test ends.
type run struct {
	Attempt

	ctx    context.Context //nolint:containedctx // the test looks at what the task sees
	finish chan func() (*tcoderv1.TaskReport, error)
	ended  chan struct{} // closed when the task has ended
}

// complete ends the task with a probe's result.
func (r *run) complete() {
	r.finish <- func() (*tcoderv1.TaskReport, error) {
		return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Probe{Probe: &tcoderv1.ProbeResult{Format: "mp4"}}}, nil
	}
}

// bundle is a worker before a scripted control plane, with scripted tasks.
type bundle struct {
	plane  *plane
	worker *Worker
	runs   chan *run
	result chan error
	cancel context.CancelCauseFunc
	log    *journal
}

// setup starts a worker. It is stopped with the test.
func setup(t *testing.T, change func(*Config)) *bundle {
	t.Helper()

	journal, log := newJournal()
	b := &bundle{plane: newPlane(t), runs: make(chan *run, 100), result: make(chan error, 1), log: journal}
	cfg := Config{
		Servers: []string{"http://plane"}, WorkerID: "w1", MachineID: "m1", Token: "open sesame", Version: "test", Slots: 2,
		ScratchDir: t.TempDir(), Logger: log, Dial: b.plane.connect,
	}

	cfg.Execute = func(ctx context.Context, a Attempt) (*tcoderv1.TaskReport, error) {
		r := &run{
			Attempt: a, ctx: ctx, finish: make(chan func() (*tcoderv1.TaskReport, error), 1), ended: make(chan struct{}),
		}
		defer close(r.ended)

		b.runs <- r

		select {
		case end := <-r.finish:
			return end()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}

	if change != nil {
		change(&cfg)
	}

	worker, err := New(cfg)
	require.NoError(t, err)

	b.worker = worker
	ctx, cancel := context.WithCancelCause(t.Context())
	b.cancel = cancel
	done := make(chan struct{})

	go func() {
		defer close(done)

		b.result <- b.worker.Run(ctx)
	}()

	t.Cleanup(func() {
		cancel(nil)
		<-done
	})

	return b
}

// started waits for a task to start.
func (b *bundle) started(t *testing.T) *run {
	t.Helper()

	select {
	case r := <-b.runs:
		return r
	case <-time.After(patience):
		require.FailNow(t, "no task started")

		return nil
	}
}

// returned waits for Run.
func (b *bundle) returned(t *testing.T) error {
	t.Helper()

	select {
	case err := <-b.result:
		return err
	case <-time.After(patience):
		require.FailNow(t, "Run doesn't return")

		return nil
	}
}

func task(id string, attempt uint32) *tcoderv1.Assignment {
	return &tcoderv1.Assignment{
		Lease:  &tcoderv1.LeaseRef{TaskId: id, Attempt: attempt},
		JobId:  "job",
		Kind:   tcoderv1.TaskKind_TASK_KIND_PROBE,
		Source: &tcoderv1.SignedRequest{Url: "http://store/source?" + secret + "=1"},
		Work:   &tcoderv1.Assignment_Probe{Probe: &tcoderv1.ProbeWork{}},
	}
}
