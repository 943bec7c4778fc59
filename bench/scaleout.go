package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// wholeSeconds of a clip are a single task, however many workers there are.
const wholeSeconds = 22

// scaleOut tells what a second worker of one thread brings, beside what a
// second FFmpeg of one thread brings without any product. All take turns: the
// pace of a machine moves by more than the two differ.
func scaleOut(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	clip, err := clipOf(ctx, s, "mix1080.mp4", wholeSeconds)
	if err != nil {
		return nil, err
	}
	e, err := startEngine(ctx, s)
	if err != nil {
		return nil, err
	}
	work, err := e.picture(ctx, clip, &tcoderv1.JobSpec{Preset: "hls-adaptive", Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER})
	if err = errors.Join(err, e.stop()); err != nil {
		return nil, err
	}
	source, stopSource, err := serveFile(ctx, clip)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stopSource()) }()
	oneWorker, stopOne, err := twoJobs(ctx, s, clip, 1)
	defer func() { err = errors.Join(err, stopOne()) }()
	if err != nil {
		return nil, err
	}
	twoWorkers, stopTwo, err := twoJobs(ctx, s, clip, 2)
	defer func() { err = errors.Join(err, stopTwo()) }()
	if err != nil {
		return nil, err
	}
	one, two, err := e.twoCommands(source, work)
	if err != nil {
		return nil, err
	}

	walls := make([][]float64, 4)
	for range s.rounds {
		turns, err := race(ctx, s, q, "scale-out", []contender{oneWorker, twoWorkers, one, two})
		if err != nil {
			return nil, err
		}
		for i, t := range turns {
			walls[i] = append(walls[i], t.took.wall.Seconds())
		}
	}
	workersGain, bareGain := median(walls[0])/median(walls[1]), median(walls[2])/median(walls[3])

	return []Result{
		plain("scale-out/workers", workersGain, "ratio", "one worker of one slot and one thread, for two jobs; two workers"),
		plain("scale-out/ffmpeg", bareGain, "ratio", "one FFmpeg of one thread after the other; two at once"),
		atLeast(0.97, plain("scale-out/gain-ratio", workersGain/bareGain, "ratio", "what two bare FFmpeg processes gain over one")),
	}, nil
}

// twoJobs are two jobs at once for so many workers, each on a processor of its
// own, with a control plane of theirs. The caller calls stop in any case.
func twoJobs(ctx context.Context, s setting, clip string, workers int) (_ contender, stop func() error, err error) {
	var children []*child
	stop = func() error {
		var errs []error
		for i := range children {
			errs = append(errs, children[len(children)-1-i].stop())
		}

		return errors.Join(errs...)
	}
	st, err := startStack(ctx, s, "--pool", "none")
	if err != nil {
		return contender{}, stop, err
	}
	children = append(children, st.up)
	for n := range workers {
		w, _, err := startWorker(ctx, s, st, n)
		if err != nil {
			return contender{}, stop, err
		}
		children = append(children, w)
	}
	c := contender{name: fmt.Sprintf("workers-%d", workers)}
	for _, one := range children {
		c.servers = append(c.servers, one.PID())
	}
	job := quoted(st.ladderOf(clip))
	c.args = together(job, job)

	return c, stop, nil
}

// together are two commands of a shell that run at the same time.
func together(a, b string) []string { return []string{"sh", "-c", a + " & " + b + " && wait $!"} }

// twoCommands do a work twice by FFmpeg alone: one after the other on the same
// processor, and at once on two.
func (e *engine) twoCommands(source ffmpeg.Source, work *tcoderv1.EncodeWork) (one, two contender, err error) {
	args, err := ffmpeg.EncodeArgs(work, source.URL, e.tools)
	if err != nil {
		return contender{}, contender{}, err
	}
	command := func(processor int) (string, error) {
		dir, err := os.MkdirTemp(e.dir, "bare-")
		if err != nil {
			return "", fmt.Errorf("scratch folder: %w", err)
		}
		for _, r := range work.GetOutput().GetVideo().GetRenditions() {
			if err := os.Mkdir(filepath.Join(dir, r.GetName()), 0o700); err != nil {
				return "", fmt.Errorf("scratch folder: %w", err)
			}
		}

		return "{ cd '" + dir + "' && " + quoted(pinned(processor, append([]string{e.tools.FFmpeg, "-y"}, args...)...)) + "; }", nil
	}
	first, errFirst := command(0)
	second, errSecond := command(1)
	again, errAgain := command(0)

	return contender{name: "ffmpeg-1", args: []string{"sh", "-c", strings.Join([]string{first, again}, " && ")}},
		contender{name: "ffmpeg-2", args: together(first, second)}, errors.Join(errFirst, errSecond, errAgain)
}
