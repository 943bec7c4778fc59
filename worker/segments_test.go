package worker

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

func getSegments(m *tcoderv1.AttachRequest) *tcoderv1.SegmentReport { return m.GetSegments() }

// finishSegments says that FFmpeg has finished some segments of a rendition.
func (r *run) finishSegments(name string, from, to int) {
	made := ffmpeg.Segments{
		Rendition: &tcoderv1.RenditionResult{Name: name}, Init: &tcoderv1.EncodedObject{Name: name + "/init.mp4"}, First: from,
	}
	for i := from; i < to; i++ {
		made.Objects = append(made.Objects, &tcoderv1.EncodedObject{Name: segmentName(name, i)})
	}

	r.segments.made([]ffmpeg.Segments{made})
}

func segmentName(rendition string, i int) string { return fmt.Sprintf("%s/%05d.m4s", rendition, i) }

func (s *planeStream) acknowledgeSegments(t *testing.T, r *tcoderv1.SegmentReport, verdict tcoderv1.ReportVerdict) {
	t.Helper()
	s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Segments{Segments: &tcoderv1.SegmentAck{
		Lease: r.GetLease(), Sequence: r.GetSequence(), Verdict: verdict,
	}}})
}

// requireReported checks what a report says of one rendition.
func requireReported(t *testing.T, r *tcoderv1.SegmentReport, sequence, first, count int) {
	t.Helper()
	require.EqualValues(t, sequence, r.GetSequence())
	require.Len(t, r.GetRenditions(), 1)
	require.EqualValues(t, first, r.GetRenditions()[0].GetFirst())
	require.Len(t, r.GetRenditions()[0].GetSegments(), count)
}

// TestSegmentsReported guarantees that segments are told as soon as they and
// all before them are in the store, one report at a time, which is said again
// on the next stream and after a while until it is acknowledged.
func TestSegmentsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-1", 2))
		r := b.started(t)
		r.finishSegments("240p", 0, 3)

		for _, name := range []string{segmentName("240p", 0), segmentName("240p", 2)} {
			r.segments.uploaded(name)
		}

		synctest.Wait()
		require.Empty(t, r.segments.next(), "nobody can play it without its init segment")

		start := time.Now()
		r.segments.uploaded("240p/init.mp4")
		report := first(t, s, getSegments)
		require.Zero(t, time.Since(start))
		require.Equal(t, "job-1", report.GetLease().GetTaskId())
		require.EqualValues(t, 2, report.GetLease().GetAttempt())
		requireReported(t, report, 1, 0, 1) // the hole ends it

		r.segments.uploaded(segmentName("240p", 1))
		report = first(t, s, getSegments)
		require.Equal(t, 15*time.Second, time.Since(start), "without an answer it is said again")
		requireReported(t, report, 1, 0, 1)

		s.cut(errors.New("crash"))
		s, _ = b.plane.welcomed(t, &tcoderv1.Welcome{})
		report = first(t, s, getSegments)
		requireReported(t, report, 1, 0, 1)

		start = time.Now()
		s.acknowledgeSegments(t, report, tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED)
		report = first(t, s, getSegments)
		require.Equal(t, segmentsEvery, time.Since(start))
		requireReported(t, report, 2, 1, 2)

		s.acknowledgeSegments(t, report, tcoderv1.ReportVerdict_REPORT_VERDICT_REJECTED)
		r.finishSegments("240p", 3, 4)
		r.segments.uploaded(segmentName("240p", 3))
		r.complete()

		for {
			message := s.next(t)
			require.Nil(t, message.GetSegments(), "what was refused once would be again")

			if message.GetReport() != nil {
				s.acknowledge(t, message.GetReport().GetLease())

				break
			}
		}
	})
}
