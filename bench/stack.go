package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/local"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// stack is a running `tcoder up`.
type stack struct {
	binary string
	up     *child
	url    string
	client *tcoder.Client
}

// The bounds of a stack's start, and of its end, when its workers hand back
// what they hold.
const (
	readyWithin   = time.Minute
	stoppedWithin = time.Minute
)

// startStack runs `tcoder up` with flags besides, and waits until it serves.
func startStack(ctx context.Context, s setting, flags ...string) (*stack, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.work, "up-")
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}
	st := &stack{binary: s.binary, url: "http://" + address}
	if st.client, err = tcoder.New(st.url); err != nil {
		return nil, err
	}
	st.up, err = startChild(ctx, filepath.Join(dir, "up.log"), local.ProcessConfig{
		Name: "up", StartTimeout: readyWithin, StopTimeout: stoppedWithin,
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, s.binary, append([]string{"up", "--listen", address, "--data", filepath.Join(dir, "data")}, flags...)...), nil
		},
		Check: func(ctx context.Context) error { return serves(ctx, st.url) },
	})

	return st, err
}

// serves returns nil once a control plane serves.
func serves(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	res, err := (&http.Client{Timeout: time.Second}).Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
		return errors.New("it doesn't serve yet")
	}

	return nil
}

// run does a job through the SDK; its cost is that of the stack's processes and
// the time until the client knows.
func (st *stack) run(ctx context.Context, clip string, spec *tcoderv1.JobSpec) (*tcoderv1.Job, cost, error) {
	before, err := treeCPU(st.up.PID())
	if err != nil {
		return nil, cost{}, err
	}
	start := time.Now()
	uploaded, err := st.client.UploadFile(ctx, clip, tcoder.UploadOptions{Spec: spec})
	if err != nil {
		return nil, cost{}, fmt.Errorf("upload: %w", err)
	}
	job, err := st.client.Wait(ctx, uploaded.Job.GetId())
	if err != nil {
		return nil, cost{}, fmt.Errorf("wait: %w", err)
	}
	if job.GetState() != tcoderv1.JobState_JOB_STATE_COMPLETED {
		return nil, cost{}, fmt.Errorf("the job ended in %s: %s", job.GetState(), job.GetFailure().GetMessage())
	}
	wall := time.Since(start)
	after, err := treeCPU(st.up.PID())

	return job, cost{wall: wall, cpu: after - before}, err
}

// follow starts a job and cancels it once it is what was waited for.
func (st *stack) follow(ctx context.Context, clip string, spec *tcoderv1.JobSpec, reached func(*tcoderv1.Job) bool) (*tcoderv1.Job, error) {
	uploaded, err := st.client.UploadFile(ctx, clip, tcoder.UploadOptions{Spec: spec})
	if err != nil {
		return nil, fmt.Errorf("upload: %w", err)
	}
	id := uploaded.Job.GetId()
	var found *tcoderv1.Job
	for update, err := range st.client.Watch(ctx, id) {
		if err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		if reached(update.Job) {
			found = update.Job

			break
		}
	}
	if found == nil {
		return nil, errors.New("the job ended before it was what was waited for")
	}
	if tcoder.IsFinal(found.GetState()) {
		return found, nil
	}
	if _, err := st.client.CancelJob(ctx, id); err != nil {
		return nil, fmt.Errorf("cancel: %w", err)
	}
	_, err = st.client.Wait(ctx, id)

	return found, err
}

// slots is how many tasks can run at a time now.
func (st *stack) slots(ctx context.Context) (uint32, error) {
	pool, err := st.client.Pool(ctx)

	return pool.GetSlots(), err
}

// withSlots waits until so many tasks can run at a time.
func (st *stack) withSlots(ctx context.Context, slots uint32) error {
	for pool, err := range st.client.WatchPool(ctx) {
		if err != nil {
			return fmt.Errorf("watch the pool: %w", err)
		}
		if pool.GetPool().GetSlots() >= slots {
			return nil
		}
	}

	return errors.New("the pool has no such slots")
}

func (st *stack) stop() error { return st.up.stop() }
