package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// chunkCost tells what it costs to make a ladder in chunks.
func chunkCost(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	qualities := []string{"1080p", "720p", "480p", "360p"}
	if s.short {
		qualities, s.short = qualities[3:], false // what is shorter than 30 s is made in one piece
	}
	clip, err := clipOf(ctx, s, "mix1080.mp4", 36)
	if err != nil {
		return nil, err
	}
	e, err := startEngine(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	work, parts, err := e.chunked(ctx, clip, qualities)
	if err != nil {
		return nil, err
	}
	const chunks, whole, wholeOneThread = "chunks", "whole", "whole-one-thread"
	contenders := []struct {
		name    string
		threads int
		works   []*tcoderv1.EncodeWork
	}{
		{chunks, 1, parts},
		{whole, 0, []*tcoderv1.EncodeWork{work}},
		{wholeOneThread, 1, []*tcoderv1.EncodeWork{work}},
	}
	took := map[string][]float64{}
	for round := range s.rounds {
		for _, c := range contenders {
			if c.name == wholeOneThread && round > 0 {
				continue // its bar is far, and it takes twice as long as the others
			}
			var spent cost
			if err := q.run(c.name, func() (err error) {
				_, spent, err = e.encode(ctx, clip, c.threads, c.works...)

				return err
			}); err != nil {
				return nil, err
			}
			took[c.name] = append(took[c.name], spent.cpu.Seconds())
		}
		slices.Reverse(contenders) // a machine that becomes slower does so for all
	}
	cpu := median(took[chunks])

	return []Result{
		plain("chunks/cpu", cpu, "s", fmt.Sprintf("in %d chunks of 36 s, as planned, one thread each", len(parts))),
		atMost(1, plain("chunks/cpu-ratio-auto", cpu/median(took[whole]), "ratio", "one unchunked command with automatic threads")),
		atMost(1.1, plain("chunks/cpu-ratio-one-thread", cpu/median(took[wholeOneThread]), "ratio", "one unchunked command with one thread")),
	}, nil
}
