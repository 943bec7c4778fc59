package pool_test

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/publish"
)

// segments sends a report of segments and returns what became of it.
func (w *worker) segments(r *tcoderv1.SegmentReport) tcoderv1.ReportVerdict {
	w.t.Helper()
	w.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Segments{Segments: r}})
	ack := expect(w, (*tcoderv1.AttachResponse).GetSegments)
	require.Equal(w.t, r.GetSequence(), ack.GetSequence())
	require.Equal(w.t, r.GetLease().GetTaskId(), ack.GetLease().GetTaskId())
	return ack.GetVerdict()
}

// some is a report of the first n segments of each rendition of a result.
func some(r *tcoderv1.TaskReport, n int) *tcoderv1.SegmentReport {
	report := &tcoderv1.SegmentReport{Lease: r.GetLease(), Sequence: uint64(n)}
	for _, e := range r.GetEncode().GetRenditions() {
		report.Renditions = append(report.Renditions, &tcoderv1.UploadedSegments{
			Rendition: e.GetResult(), InitSegment: e.GetInitSegment(), Segments: e.GetSegments()[:n],
		})
	}
	return report
}

// encoding is a job whose encode has begun: its worker, and the result that it
// will have.
func (c *cell) encoding(t *testing.T, r *replica) (pipeline.Job, *worker, *tcoderv1.TaskReport, map[string][]byte) {
	t.Helper()
	w, _ := r.attach(t, &tcoderv1.Hello{})
	job := c.submit(t)
	require.Equal(t, accepted, w.report(probed(w.assignment().GetLease())))
	report, files := w.encode(w.assignment())
	return job, w, report, files
}

// playlist returns a published playlist of a job, empty if there is none.
func (c *cell) playlist(t *testing.T, jobID, name string) string {
	t.Helper()
	body, _, err := c.out.Get(t.Context(), media.OutputPrefix(pipeline.DefaultProject, jobID, "hls")+name)
	if err != nil {
		return ""
	}
	defer body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	return string(text)
}

// TestSegments: what an attempt has uploaded is committed under its lease
// alone, if it is in the store and as planned; it can be played at once, and
// the result follows it. Said again, also to another replica, it adds nothing.
func TestSegments(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	job, w, result, files := c.encoding(t, r)
	p := publish.New(c.store, c.out, slog.New(slog.DiscardHandler))

	require.Equal(t, rejected, w.segments(some(result, 1)), "nothing is uploaded yet")
	w.upload(result, files)
	odd := proto.CloneOf(some(result, 1))
	odd.Renditions[0].Rendition.Width = 2
	require.Equal(t, rejected, w.segments(odd))
	other, _ := r.attach(t, &tcoderv1.Hello{})
	require.Equal(t, stale, other.segments(some(result, 1)), "the lease isn't its own")
	require.NoError(t, p.Stream(t.Context(), job.ID))
	require.True(t, c.job(t, job.ID).Times.Playable.IsZero())

	require.Equal(t, accepted, w.segments(some(result, 1)))
	w.cut()
	w, welcome := c.replica(t).attach(t, &tcoderv1.Hello{WorkerId: w.id, Held: []*tcoderv1.LeaseRef{result.GetLease()}})
	require.Len(t, welcome.GetKept(), 1)
	require.Equal(t, accepted, w.segments(some(result, 1)))
	stream, err := c.store.ReadStream(t.Context(), job.ID, 0, 0)
	require.NoError(t, err)
	require.EqualValues(t, len(result.GetEncode().GetRenditions()), stream.Version)

	require.NoError(t, p.Stream(t.Context(), job.ID))
	running := c.job(t, job.ID)
	require.Equal(t, pipeline.JobRunning, running.State)
	require.False(t, running.Times.Playable.IsZero())
	name := result.GetEncode().GetRenditions()[0].GetResult().GetName()
	require.NotEmpty(t, c.playlist(t, job.ID, "master.m3u8"))
	growing := c.playlist(t, job.ID, name+".m3u8")
	require.Contains(t, growing, "#EXT-X-PLAYLIST-TYPE:EVENT")
	require.Equal(t, 1, strings.Count(growing, "#EXTINF"))
	require.NotContains(t, growing, "#EXT-X-ENDLIST")

	require.Equal(t, accepted, w.report(result))
	require.Eventually(t, func() bool { return c.job(t, job.ID).State == pipeline.JobCompleted }, patience, 5*time.Millisecond)
	final := c.playlist(t, job.ID, name+".m3u8")
	require.Contains(t, final, "#EXT-X-PLAYLIST-TYPE:VOD")
	require.Contains(t, final, "#EXT-X-ENDLIST")
	require.Equal(t, 3, strings.Count(final, "#EXTINF"))
	require.Equal(t, stale, w.segments(some(result, 2)), "its lease has ended")
}

// TestSegmentsOfLostAttempt: what an attempt published before its worker was
// lost stays where players were told it is, and the next attempt fills in the
// rest; the lost one publishes nothing more.
func TestSegmentsOfLostAttempt(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	r := c.replica(t)
	job, zombie, lost, files := c.encoding(t, r)
	zombie.upload(lost, files)
	require.Equal(t, accepted, zombie.segments(some(lost, 1)))
	p := publish.New(c.store, c.out, slog.New(slog.DiscardHandler))
	require.NoError(t, p.Stream(t.Context(), job.ID))

	other, _ := r.attach(t, &tcoderv1.Hello{})
	_, err := c.store.DrainWorker(t.Context(), zombie.id)
	require.NoError(t, err)
	verdict, err := c.store.ReleaseTask(t.Context(), zombie.id, pipeline.LeaseRef{TaskID: lost.GetLease().GetTaskId(), Attempt: 1})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, verdict)
	result, files := other.encode(other.assignment())
	require.EqualValues(t, 2, result.GetLease().GetAttempt())
	require.Equal(t, stale, zombie.segments(some(lost, 2)))
	other.upload(result, files)
	require.Equal(t, accepted, other.segments(some(result, 2)))
	require.NoError(t, p.Stream(t.Context(), job.ID))
	name := result.GetEncode().GetRenditions()[0].GetResult().GetName()
	inOrder := func(playlist string, count int) {
		t.Helper()
		require.Equal(t, count, strings.Count(playlist, "#EXTINF"))
		require.Contains(t, playlist, "t1a1/"+name+"/00000.m4s")
		require.Contains(t, playlist, "t1a2/"+name+"/00001.m4s")
	}
	inOrder(c.playlist(t, job.ID, name+".m3u8"), 2)

	require.Equal(t, accepted, other.report(result))
	require.Eventually(t, func() bool { return c.job(t, job.ID).State == pipeline.JobCompleted }, patience, 5*time.Millisecond)
	inOrder(c.playlist(t, job.ID, name+".m3u8"), 3)
}
