package main

import (
	"context"
	"errors"
	"fmt"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// chunkCost tells what it costs to make a ladder in chunks.
func chunkCost(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	clip, err := clipOf(ctx, s, "mix1080.mp4", 36)
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
	contenders := []struct {
		name    string
		threads int
		works   []*tcoderv1.EncodeWork
	}{
		{"chunks", 1, inChunks(work, segments)},
		{"whole", 0, []*tcoderv1.EncodeWork{work}},
		{"whole-one-thread", 1, []*tcoderv1.EncodeWork{work}},
	}
	took := make([]float64, len(contenders))
	for i, c := range contenders { // one round: processor time moves by 2 % between rounds
		if err := q.run(c.name, func() error {
			_, spent, err := e.encode(ctx, clip, c.threads, c.works...)
			took[i] = spent.cpu.Seconds()

			return err
		}); err != nil {
			return nil, err
		}
	}

	return []Result{
		plain("chunks/cpu", took[0], "s", fmt.Sprintf("%d chunks, one thread each", len(contenders[0].works))),
		atMost(1, plain("chunks/cpu-ratio-auto", took[0]/took[1], "ratio", "one unchunked command with automatic threads")),
		atMost(1.1, plain("chunks/cpu-ratio-one-thread", took[0]/took[2], "ratio", "one unchunked command with one thread")),
	}, nil
}
