package pipeline

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// SegmentCommit says what an attempt has uploaded of its output's renditions
// while it runs.
type SegmentCommit struct {
	Ref      LeaseRef
	WorkerID string
	Output   string
	Part     int // as in NewTask
	Uploaded []media.UploadedSegments
}

// Commit is what one of them added to the stream of one rendition.
type Commit struct {
	Output   string
	Part     int
	Task     int // index
	Attempt  int
	Uploaded media.UploadedSegments
}

// Stream is what is committed of a job's HLS outputs before its tasks are done.
type Stream struct {
	Project  string
	State    JobState
	Run      int
	Playable bool        // it was said to be
	Version  int64       // how many commits there are
	Commits  []Commit    // those that the reader lacked, oldest first
	Plan     *media.Plan // nil if the reader knew the run
}

// Publication is what was published of a stream.
type Publication struct {
	JobID    string
	Run      int
	Version  int64 // of the stream, as it was read
	Playable bool  // a player can start
	// Renditions are how far each is, for readers of the job; Percent is ignored.
	Renditions []RenditionProgress
}

// StreamEvery is the least time between two publications of a job's stream:
// object stores refuse more writes of one key.
const StreamEvery = time.Second

// StreamStore keeps what of a job can be played before its tasks are done. A
// stream belongs to a run, and is gone when that ends.
type StreamStore interface {
	// CommitSegments adds what an attempt uploaded to its job's stream, and
	// leaves a DutyStream, which is due in StreamEvery where a player can start and
	// no other task is left: the end of that one publishes all, and takes its place. A segment counts once for its task, whichever attempt
	// committed it first: of what is there already nothing is added, so that
	// attempts may overlap, and a replay adds nothing. STALE if the lease isn't
	// the worker's, or if a rendition would have a hole; nothing is added then.
	CommitSegments(ctx context.Context, c SegmentCommit) (Verdict, error)
	// ReadStream returns the stream of a job with the commits after the first
	// so many; all of them, and the plan, if the job isn't in that run.
	// Errors: ReasonJobNotFound.
	ReadStream(ctx context.Context, id string, run int, after int64) (Stream, error)
	// StreamPublished notes what was published and ends the job's DutyStream;
	// if there are newer commits, it comes again in StreamEvery, or at once where
	// nothing was written yet. The first playable one is an event. False if the job isn't RUNNING in that run:
	// what was published has to go, unless the job is COMPLETED.
	StreamPublished(ctx context.Context, p Publication) (bool, error)
}
