package worker

import (
	"sync"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

const (
	// segmentsEvery is the least time between two reports of an attempt's
	// segments. The first ones of its renditions follow each other quickly, and
	// a player waits for them.
	segmentsEvery = 250 * time.Millisecond
	// maxReported bounds the segments of a rendition in one report.
	maxReported = 256
)

// segmentLog is what an attempt has made and uploaded of its HLS renditions,
// and how much of that was reported. The work fills it, the loop empties it.
type segmentLog struct {
	grew func() // is called when there is more to report, without blocking

	mu         sync.Mutex
	renditions []*loggedRendition
	stored     map[string]bool
}

type loggedRendition struct {
	about    *tcoderv1.RenditionResult
	initial  *tcoderv1.EncodedObject
	segments []*tcoderv1.EncodedObject
	reported int
}

func newSegmentLog(grew func()) *segmentLog {
	return &segmentLog{grew: grew, stored: map[string]bool{}}
}

// made takes in what FFmpeg has finished.
func (l *segmentLog) made(finished []ffmpeg.Segments) {
	l.mu.Lock()
	defer l.mu.Unlock()

	for _, s := range finished {
		r := l.rendition(s.Rendition)
		if r == nil {
			r = &loggedRendition{about: s.Rendition, initial: s.Init}
			l.renditions = append(l.renditions, r)
		}

		r.segments = append(r.segments, s.Objects...)
	}
}

// rendition is what is known of a rendition, nil if nothing is.
func (l *segmentLog) rendition(about *tcoderv1.RenditionResult) *loggedRendition {
	for _, r := range l.renditions {
		if r.about.GetName() == about.GetName() {
			return r
		}
	}

	return nil
}

// uploaded takes in that an object is in the store.
func (l *segmentLog) uploaded(name string) {
	l.mu.Lock()
	l.stored[name] = true
	more := len(l.unreported()) > 0
	l.mu.Unlock()

	if more {
		l.grew()
	}
}

// next is what can be reported: of each rendition what is uploaded from the
// start without a hole, beyond what was reported. Nil if there is nothing.
func (l *segmentLog) next() []*tcoderv1.UploadedSegments {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.unreported()
}

func (l *segmentLog) unreported() []*tcoderv1.UploadedSegments {
	var list []*tcoderv1.UploadedSegments

	for _, r := range l.renditions {
		if !l.stored[r.initial.GetName()] {
			continue
		}

		n := r.reported
		for n < len(r.segments) && n-r.reported < maxReported && l.stored[r.segments[n].GetName()] {
			n++
		}

		if n > r.reported {
			list = append(list, &tcoderv1.UploadedSegments{
				Rendition: r.about, InitSegment: r.initial, First: uint32(r.reported), Segments: r.segments[r.reported:n],
			})
		}
	}

	return list
}

// confirm takes in that a report was accepted.
func (l *segmentLog) confirm(list []*tcoderv1.UploadedSegments) {
	l.mu.Lock()
	defer l.mu.Unlock()

	for _, reported := range list {
		l.rendition(reported.GetRendition()).reported = int(reported.GetFirst()) + len(reported.GetSegments())
	}
}

// segmentReports are the loop's notes about the reports of one attempt: one
// is under way at a time.
type segmentReports struct {
	log      *segmentLog
	sequence uint64
	waiting  *tcoderv1.SegmentReport // has no answer yet
	at       time.Time               // when to send it again, or may send the next
	refused  bool                    // it is no use: its result will tell why
}

// dueAt is when there is something to send; zero while there isn't.
func (r *segmentReports) dueAt() time.Time {
	if r.refused || r.waiting == nil && r.log.next() == nil {
		return time.Time{}
	}

	if r.at.IsZero() {
		return time.Unix(1, 0) // at once
	}

	return r.at
}

// reportSegments sends the report that has no answer, or the next.
func (l *loop) reportSegments(task *heldTask, now time.Time) {
	reports := &task.segments
	if reports.waiting == nil {
		reports.sequence++
		reports.waiting = &tcoderv1.SegmentReport{
			Lease: task.lease, Sequence: reports.sequence, Renditions: reports.log.next(),
		}
	}

	reports.at = now.Add(resendHeartbeats * l.heartbeat)
	l.send(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Segments{Segments: reports.waiting}})
}

func (l *loop) segmentsAcknowledged(ack *tcoderv1.SegmentAck, now time.Time) {
	task := l.tasks[keyOf(ack.GetLease())]
	if task == nil || task.segments.waiting.GetSequence() != ack.GetSequence() {
		return
	}

	reports := &task.segments
	if ack.GetVerdict() == tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED {
		reports.log.confirm(reports.waiting.GetRenditions())
	} else {
		task.log.Warn("the segments were not accepted", "verdict", ack.GetVerdict().String())

		reports.refused = true
	}

	reports.waiting, reports.at = nil, now.Add(segmentsEvery)
}
