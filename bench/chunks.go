package main

import (
	"context"
	"errors"
	"slices"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// chunkCost tells what it costs to make a ladder in chunks.
func chunkCost(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	clip, err := clipOf(ctx, s, "mix1080.mp4", 24)
	if err != nil {
		return nil, err
	}
	e, err := startEngine(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	work, err := e.picture(ctx, clip, &tcoderv1.JobSpec{Preset: "hls-adaptive", Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER})
	if err != nil {
		return nil, err
	}
	segments := uint64(3) // 12 s
	if s.short {
		segments = 1
	}
	const chunks, whole, wholeOneThread = "chunks", "whole", "whole-one-thread"
	contenders := []struct {
		name    string
		threads int
		works   []*tcoderv1.EncodeWork
	}{
		{chunks, 1, inChunks(work, segments)},
		{whole, 0, []*tcoderv1.EncodeWork{work}},
		{wholeOneThread, 1, []*tcoderv1.EncodeWork{work}},
	}
	took := map[string]float64{}
	for range s.rounds {
		for _, c := range contenders {
			if err := q.run(c.name, func() error {
				_, spent, err := e.encode(ctx, clip, c.threads, c.works...)
				took[c.name] += spent.cpu.Seconds()

				return err
			}); err != nil {
				return nil, err
			}
		}
		slices.Reverse(contenders) // a machine that becomes slower does so for all
	}

	return []Result{
		plain("chunks/cpu", took[chunks]/float64(s.rounds), "s", "in pieces of 12 s, one thread each"),
		atMost(1, plain("chunks/cpu-ratio-auto", took[chunks]/took[whole], "ratio", "one unchunked command with automatic threads")),
		atMost(1.1, plain("chunks/cpu-ratio-one-thread", took[chunks]/took[wholeOneThread], "ratio", "one unchunked command with one thread")),
	}, nil
}
