package modeltest

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	leadFor   = 15 * time.Second
	retention = time.Hour
)

func (w *world) sweep(t *rapid.T) {
	r := pipeline.SweepRequest{
		Replica:   rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "sweeper"),
		LeaderTTL: leadFor, Lease: leaseFor, Retry: policy(),
		Retention: rapid.SampledFrom([]time.Duration{0, retention}).Draw(t, "retention"),
		Busy:      rapid.IntRange(0, 3).Draw(t, "busy") == 3,
	}

	for _, id := range workers() {
		if rapid.Bool().Draw(t, "attached") {
			r.Attached = append(r.Attached, id)
		}
	}

	_, _ = w.sweepBy(r)
}

func (w *world) sweepBy(r pipeline.SweepRequest) (pipeline.Swept, error) {
	answer, err := w.do(call{"Sweep", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.Sweep(ctx, r)

		for i := range got.Duties {
			// Where the bytes are is what a purge has to know.
			got.Duties[i].Source.SizeBytes, got.Duties[i].Source.ETag = 0, ""
		}

		return got, nil, err
	}})
	if err != nil {
		return pipeline.Swept{}, err
	}

	return answer.(pipeline.Swept), nil //nolint:forcetypeassert // it is what the call returned
}

func (w *world) completeJob(t *rapid.T) {
	id, run := w.job(t), rapid.IntRange(1, 2).Draw(t, "run")
	if j, ok := w.last.Jobs[id]; ok && rapid.Bool().Draw(t, "the newest run") {
		run = j.Run
	}

	w.complete(id, run)
}

// complete publishes a job.
func (w *world) complete(id string, run int) {
	_, _ = w.do(call{"CompleteJob", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		ok, err := s.CompleteJob(ctx, id, run, outputsOf(id))

		return ok, ok, err
	}})
}

func outputsOf(id string) []media.Output {
	return []media.Output{{
		Name: "hls", Kind: media.KindHLS, Entry: "master.m3u8",
		Objects: []media.OutputObject{{Name: "master.m3u8", Key: "out/" + id}},
	}}
}

func (w *world) endDuty(t *rapid.T) {
	if len(w.duties) == 0 {
		t.Skip()
	}

	w.end(rapid.SampledFrom(w.duties[max(0, len(w.duties)-8):]).Draw(t, "duty"))
}

func (w *world) end(d pipeline.Duty) {
	_, _ = w.do(call{"EndDuty", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		return nil, "ended", s.EndDuty(ctx, d)
	}})
}

func (w *world) resign(t *rapid.T) {
	replica := rapid.SampledFrom([]string{"r1", "r2"}).Draw(t, "sweeper")

	_, _ = w.do(call{"Resign", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		return nil, "resigned", s.Resign(ctx, replica)
	}})
}
