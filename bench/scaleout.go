package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// scaleOut tells what a second worker of one thread brings, beside what a
// second FFmpeg of one thread brings without any product.
func scaleOut(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	clip, err := clipOf(ctx, s, "camera1080.mp4", 8)
	if err != nil {
		return nil, err
	}
	e, err := startEngine(ctx, s)
	if err != nil {
		return nil, err
	}
	spec := &tcoderv1.JobSpec{Preset: "hls-adaptive", Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER}
	work, err := e.picture(ctx, clip, spec)
	if err = errors.Join(err, e.stop()); err != nil {
		return nil, err
	}
	st, err := startStack(ctx, s, "--pool", "none")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	first, _, err := startWorker(ctx, s, st, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, first.stop()) }()
	workers := func() error {
		return pairOf(true, func(int) error { _, _, err := st.run(ctx, clip, spec); return err })
	}
	bare := func(processors int) func() error {
		return func() error {
			return pairOf(processors > 1, func(n int) error { return e.bare(ctx, clip, work, n%processors) })
		}
	}
	measure := func(wall *[]float64, twice func() error) error {
		var took float64
		err := q.run("scale-out", func() error {
			start := time.Now()
			err := twice()
			took = time.Since(start).Seconds()

			return err
		})
		*wall = append(*wall, took)

		return err
	}
	// One and two are measured side by side: the pace of a machine moves.
	var oneBare, twoBare, oneWorker, twoWorkers []float64
	for range s.rounds {
		if err := errors.Join(measure(&oneBare, bare(1)), measure(&oneWorker, workers)); err != nil {
			return nil, err
		}
		second, _, err := startWorker(ctx, s, st, 1)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(measure(&twoWorkers, workers), measure(&twoBare, bare(2)), second.stop()); err != nil {
			return nil, err
		}
	}
	workersGain, bareGain := median(oneWorker)/median(twoWorkers), median(oneBare)/median(twoBare)

	return []Result{
		plain("scale-out/workers", workersGain, "ratio", "one worker of one slot and one thread, for two jobs; two workers"),
		plain("scale-out/ffmpeg", bareGain, "ratio", "one FFmpeg of one thread after the other; two at once"),
		atLeast(0.97, plain("scale-out/gain-ratio", workersGain/bareGain, "ratio", "what two bare FFmpeg processes gain over one")),
	}, nil
}

// bare does a work on one processor by FFmpeg alone.
func (e *engine) bare(ctx context.Context, clip string, work *tcoderv1.EncodeWork, processor int) (err error) {
	source, stop, err := serveFile(ctx, clip)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	dir, err := os.MkdirTemp(e.dir, "bare-")
	if err != nil {
		return fmt.Errorf("scratch folder: %w", err)
	}
	for _, r := range work.GetOutput().GetVideo().GetRenditions() {
		if err := os.Mkdir(filepath.Join(dir, r.GetName()), 0o700); err != nil {
			return fmt.Errorf("scratch folder: %w", err)
		}
	}
	args, err := ffmpeg.EncodeArgs(work, source.URL, e.tools)
	if err != nil {
		return err
	}
	command := pinned(processor, append([]string{e.tools.FFmpeg}, args...)...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ffmpeg: %w\n%s", err, out)
	}

	return nil
}

// pairOf runs something twice, at once or one after the other.
func pairOf(together bool, run func(int) error) error {
	if !together {
		return errors.Join(run(0), run(1))
	}
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		both.Go(func() { errs[i] = run(i) })
	}
	both.Wait()

	return errors.Join(errs...)
}
