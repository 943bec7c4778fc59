package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// transcode measures the engine and the product around it, on real clips.
func transcode(ctx context.Context, s setting) ([]Result, error) {
	return measureParts(ctx, s, "transcode", []part{
		{"product", inRounds(3, product)},
		{"playable", playable},
		{"remux", inRounds(2, remux)},
		{"copy-top", inRounds(1, copyTop)},
		{"rate", rate},
		{"chunks", inRounds(2, chunkCost)},
		{"scale-out", inRounds(1, scaleOut)},
		{"seams", seams},
		{"footprint", footprint},
		{"simulated", func(ctx context.Context, _ setting, _ *quiet) ([]Result, error) { return poolLadder(ctx) }},
	})
}

// inRounds bounds the rounds of a part, so that the group ends within 25
// minutes.
func inRounds(most int, run func(context.Context, setting, *quiet) ([]Result, error)) func(context.Context, setting, *quiet) ([]Result, error) {
	return func(ctx context.Context, s setting, q *quiet) ([]Result, error) {
		s.rounds = min(s.rounds, most)

		return run(ctx, s, q)
	}
}

// shortSeconds is how much of a clip is taken with -short.
const shortSeconds = 8

// mix is the 62 s clip of camera, film and traffic.
func mix(ctx context.Context, s setting) (string, error) { return clipOf(ctx, s, "mix1080.mp4", 0) }

// clipOf is a real clip, or its first seconds as they are.
func clipOf(ctx context.Context, s setting, name string, seconds int) (string, error) {
	path := filepath.Join(s.media, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the bench clip is missing: %w", err)
	}
	if s.short && (seconds == 0 || seconds > shortSeconds) {
		seconds = shortSeconds
	}
	if seconds == 0 {
		return path, nil
	}

	return madeOf(ctx, s, path, fmt.Sprintf("first-%d-", seconds)+name, nil, "-t", strconv.Itoa(seconds), "-c", "copy")
}

// madeOf makes a clip of another one with FFmpeg, once a run.
func madeOf(ctx context.Context, s setting, path, name string, before []string, after ...string) (string, error) {
	made := filepath.Join(s.work, name)
	if _, err := os.Stat(made); err == nil {
		return made, nil
	}
	args := append([]string{"-v", "error", "-nostdin", "-y"}, before...)
	args = append(append(args, "-i", path, "-map", "0:v:0", "-map", "0:a:0?"), after...)
	_, err := output(ctx, "ffmpeg", append(args, "-movflags", "+faststart", made)...)

	return made, err
}

// playable tells how soon a video can be watched once it is uploaded, and that
// its length doesn't matter. The jobs are canceled then.
func playable(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	length := 600
	if s.short {
		length, s.short = 120, false // what is shorter than 30 s is made in one piece
	}
	minute, err := mix(ctx, s)
	if err != nil {
		return nil, err
	}
	long, err := madeOf(ctx, s, minute, "long.mp4", []string{"-stream_loop", "-1"}, "-t", strconv.Itoa(length), "-c", "copy")
	if err != nil {
		return nil, err
	}
	st, err := startStack(ctx, s, "--pool-limit", "2", "--pool-min-warm", "2")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	if err := st.withSlots(ctx, 2); err != nil {
		return nil, err
	}
	took := map[string][]float64{}
	for range s.rounds {
		for _, clip := range []string{minute, long} {
			if err := q.run("playable", func() error {
				job, err := st.follow(ctx, clip, &tcoderv1.JobSpec{Preset: "hls-adaptive"},
					func(j *tcoderv1.Job) bool { return j.GetTimeToPlayable() != nil })
				if err == nil {
					took[clip] = append(took[clip], job.GetTimeToPlayable().AsDuration().Seconds())
				}

				return err
			}); err != nil {
				return nil, err
			}
		}
	}
	first, second := median(took[minute]), median(took[long])

	return []Result{
		atMost(4, plain("playable/minute", first, "s", "from the complete upload until the first segments are published")),
		atMost(4, plain("playable/ten-minutes", second, "s", "the same of a source of 10 min")),
		atMost(0.2, plain("playable/difference", math.Abs(second/first-1), "ratio", "that of the minute")),
	}, nil
}

// remux tells what a file costs that already is what was asked for.
func remux(ctx context.Context, s setting, q *quiet) ([]Result, error) {
	clip, err := mix(ctx, s)
	if err != nil {
		return nil, err
	}

	return policies(ctx, s, q, clip, "remux", func(policy tcoderv1.CopyPolicy) *tcoderv1.JobSpec {
		return &tcoderv1.JobSpec{Copy: policy, Outputs: []*tcoderv1.OutputSpec{{Name: "mp4", Kind: tcoderv1.OutputKind_OUTPUT_KIND_MP4}}}
	}, func(wall, cpu float64) []Result {
		return []Result{
			atMost(0.05, plain("remux/wall-ratio", wall, "ratio", "the same file encoded to one MP4 of its size")),
			atMost(0.05, plain("remux/cpu-ratio", cpu, "ratio", "the same")),
		}
	})
}

// copyTop tells what is saved where the source becomes the largest rung.
func copyTop(ctx context.Context, s setting, q *quiet) ([]Result, error) {
	source, err := clipOf(ctx, s, "mix1080.mp4", 24)
	if err != nil {
		return nil, err
	}
	// The mix has groups of up to 10 s, at more bits than a rung may have.
	clip, err := madeOf(ctx, s, source, "fitting.mp4", nil, "-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-pix_fmt", "yuv420p",
		"-b:v", "4500k", "-maxrate", "4800k", "-bufsize", "7M", "-g", "48", "-keyint_min", "48", "-sc_threshold", "0", "-c:a", "copy")
	if err != nil {
		return nil, err
	}

	return policies(ctx, s, q, clip, "copy-top", func(policy tcoderv1.CopyPolicy) *tcoderv1.JobSpec {
		return &tcoderv1.JobSpec{Preset: "hls-adaptive", Copy: policy}
	}, func(wall, cpu float64) []Result {
		return []Result{
			plain("copy-top/wall-ratio", wall, "ratio", "the full ladder of one decode"),
			atMost(0.6, plain("copy-top/cpu-ratio", cpu, "ratio", "the same")),
		}
	})
}

// policies runs a job with streams copied and with all of them encoded, and
// fails where the copy made none.
func policies(ctx context.Context, s setting, q *quiet, clip, name string, spec func(tcoderv1.CopyPolicy) *tcoderv1.JobSpec,
	judge func(wall, cpu float64) []Result,
) (_ []Result, err error) {
	st, err := startStack(ctx, s, "--pool-limit", "1", "--pool-min-warm", "1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	if err := st.withSlots(ctx, 1); err != nil {
		return nil, err
	}
	var wall, cpu []float64
	for range s.rounds {
		var took [2]cost
		for i, policy := range []tcoderv1.CopyPolicy{tcoderv1.CopyPolicy_COPY_POLICY_WHEN_FITTING, tcoderv1.CopyPolicy_COPY_POLICY_NEVER} {
			if err := q.run(name, func() error {
				job, c, err := st.run(ctx, clip, spec(policy))
				if err != nil {
					return err
				}
				if copied := job.GetOutputs()[0].GetRenditions()[0].GetCopied(); copied != (i == 0) {
					return fmt.Errorf("invalid: with %s the picture is copied: %t", policy, copied)
				}
				took[i] = c

				return nil
			}); err != nil {
				return nil, err
			}
		}
		wall = append(wall, ratioOf(took[0].wall, took[1].wall))
		cpu = append(cpu, ratioOf(took[0].cpu, took[1].cpu))
	}

	return judge(median(wall), median(cpu)), nil
}

func ratioOf(a, b time.Duration) float64 { return a.Seconds() / b.Seconds() }
