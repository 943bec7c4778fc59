package modeltest

import (
	"context"
	"time"

	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// commitSegments tells of segments that a task uploaded: those that come next, some again, or some with a hole before.
func (w *world) commitSegments(t *rapid.T) {
	g := w.lease(t)
	c := pipeline.SegmentCommit{Ref: g.lease.Ref, WorkerID: g.worker, Output: "hls", Part: 1}

	for _, rendition := range []string{"720p", "360p"} {
		u := media.UploadedSegments{
			Rendition: media.RenditionResult{Name: rendition}, First: rapid.SampledFrom([]int{0, 0, 1, 2, 4}).Draw(t, "first"),
		}
		for range rapid.IntRange(1, 3).Draw(t, "segments") {
			u.Segments = append(u.Segments, media.EncodedObject{Name: rendition, SizeBytes: 1, Duration: 4 * time.Second})
		}

		c.Uploaded = append(c.Uploaded, u)

		if rapid.Bool().Draw(t, "one rendition") {
			break
		}
	}

	_, _ = w.do(call{"CommitSegments", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		v, err := s.CommitSegments(ctx, c)

		return v, v, err
	}})
}

func (w *world) readStream(t *rapid.T) {
	id, run, after := w.job(t), rapid.IntRange(0, 2).Draw(t, "run"), rapid.IntRange(0, 3).Draw(t, "after")

	_, _ = w.do(call{"ReadStream", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		got, err := s.ReadStream(ctx, id, run, int64(after))

		return got, got, err
	}})
}

func (w *world) streamPublished(t *rapid.T) {
	id := w.job(t)
	w.published(pipeline.Publication{
		JobID: id, Run: max(1, w.last.Jobs[id].Run-rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "runs ago")),
		Version: int64(rapid.IntRange(0, 3).Draw(t, "version")), Playable: rapid.Bool().Draw(t, "playable"),
		Renditions: []pipeline.RenditionProgress{{Output: "hls", Name: "720p", Playable: 4 * time.Second}},
	})
}

func (w *world) published(p pipeline.Publication) {
	_, _ = w.do(call{"StreamPublished", "", func(ctx context.Context, s pipeline.Store) (any, any, error) {
		ok, err := s.StreamPublished(ctx, p)

		return ok, ok, err
	}})
}
