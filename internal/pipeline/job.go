package pipeline

import (
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// DefaultProject is the project of every record until there are keys.
const DefaultProject = "default"

// Source is where a job's bytes come from.
type Source struct {
	ObjectKey string `json:"object_key"` // in the input bucket
	SizeBytes int64  `json:"size_bytes,omitempty"`
	ETag      string `json:"etag,omitempty"` // empty while uploading
	Filename  string `json:"filename,omitempty"`
	UploadID  string `json:"upload_id,omitempty"` // empty for an object that was already there
}

// JobTimes is when each stage of the current run was reached, by the store's
// clock; zero if it wasn't.
type JobTimes struct {
	Created  time.Time
	Queued   time.Time
	Started  time.Time
	Planned  time.Time
	Playable time.Time
	Finished time.Time
}

// Progress is how far a job or a task is.
type Progress struct {
	Percent   float64       `json:"percent"` // 0 to 100
	MediaTime time.Duration `json:"media_time"`
	Speed     float64       `json:"speed"` // media seconds per second, 0 if unknown
	FPS       float64       `json:"fps"`   // 0 if unknown
	ETA       time.Duration `json:"eta"`   // 0 if unknown

	// Filled for readers of a job.
	Share      float64             `json:"-"` // of the work, 0 to 100, that is done now: below Percent where some was lost
	Stages     []StageProgress     `json:"-"`
	Renditions []RenditionProgress `json:"-"` // of HLS outputs while they grow, then of MP4 outputs
}

// Stage is a stage of a job.
type Stage string

// The stages, in order.
const (
	StageProbe   Stage = "PROBE"
	StageEncode  Stage = "ENCODE"
	StagePublish Stage = "PUBLISH"
)

// StageProgress is how far a stage is.
type StageProgress struct {
	Stage   Stage
	Percent float64
}

// RenditionProgress is how far a rendition of a job that runs is.
type RenditionProgress struct {
	Output   string
	Name     string
	Playable time.Duration // from the start, without holes; 0 of a file
	Percent  float64       // of the planned duration
}

// PlayableOutput is an output that a player can start on.
type PlayableOutput struct {
	Output    string
	ObjectKey string // of its master playlist, in the output bucket
}

// WaitReason is why a job waits.
type WaitReason string

// The reasons to wait.
const (
	WaitNone    WaitReason = ""
	WaitUpload  WaitReason = "UPLOAD"
	WaitQueue   WaitReason = "QUEUE"
	WaitWorker  WaitReason = "NO_WORKER"
	WaitBackoff WaitReason = "BACKOFF"
	WaitProject WaitReason = "PROJECT_LIMIT"
)

// Job is one source turned into a set of outputs.
type Job struct {
	ID       string
	Project  string
	State    JobState
	Spec     media.Spec // as asked; media.Resolve completes it
	Source   Source
	Priority int // higher starts first, -100 to 100
	Labels   map[string]string
	Times    JobTimes
	Run      int   // from 1; a retry starts the next
	Sequence int64 // of the newest event
	Progress Progress
	Failure  *Failure // in FAILED and CANCELED only
	Probe    *media.Probe
	Plan     *media.Plan
	Outputs  []media.Output // in COMPLETED only
	Playable []PlayableOutput

	// Filled by GetJob, not by ListJobs.
	Tasks        []Task
	Wait         WaitReason
	WaitPosition int64     // ready tasks that are likely to be leased before its own
	Streamed     time.Time // when what grows was written last; zero if nothing was
}

// EventType is what happened to a job, as the API's JobEventType without its prefix.
type EventType string

// The types of events.
const (
	EventCreated     EventType = "CREATED"
	EventQueued      EventType = "QUEUED"
	EventStarted     EventType = "STARTED"
	EventPlanned     EventType = "PLANNED"
	EventPlayable    EventType = "PLAYABLE"
	EventCompleted   EventType = "COMPLETED"
	EventFailed      EventType = "FAILED"
	EventCanceled    EventType = "CANCELED"
	EventRetried     EventType = "RETRIED"
	EventTaskLeased  EventType = "TASK_LEASED"
	EventTaskDone    EventType = "TASK_DONE"
	EventTaskDelayed EventType = "TASK_DELAYED"
	EventTaskDead    EventType = "TASK_DEAD"
)

// Event is one change of a job.
type Event struct {
	Sequence int64 // from 1, without gaps
	Type     EventType
	At       time.Time
	JobID    string
	TaskID   string // task events only
	Attempt  int    // task events only
	Failure  *Failure
}

// Upload is a promise of bytes.
type Upload struct {
	ID            string
	JobID         string
	Project       string
	State         UploadState
	Filename      string
	SizeBytes     int64
	ContentType   string
	ObjectKey     string // in the input bucket
	MultipartID   string // the object store's upload id; empty for a single PUT
	PartSizeBytes int64  // of every part but the last; 0 for a single PUT
	PartCount     int
	Created       time.Time
	Expires       time.Time
}
