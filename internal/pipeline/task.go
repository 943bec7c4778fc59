package pipeline

import (
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// TaskKind is what a task does.
type TaskKind string

// The kinds of task.
const (
	KindFetch    TaskKind = "FETCH"
	KindProbe    TaskKind = "PROBE"
	KindEncode   TaskKind = "ENCODE"
	KindAudio    TaskKind = "AUDIO"
	KindImages   TaskKind = "IMAGES"
	KindAssemble TaskKind = "ASSEMBLE"
)

// LeaseRef names one lease: a task, and its fencing token.
type LeaseRef struct {
	TaskID  string
	Attempt int // from 1
}

// Outcome is how an attempt ended.
type Outcome string

// The outcomes; empty while the attempt runs.
const (
	OutcomeDone     Outcome = "DONE"
	OutcomeFailed   Outcome = "FAILED"
	OutcomeLost     Outcome = "LOST"
	OutcomeReleased Outcome = "RELEASED"
	OutcomeCanceled Outcome = "CANCELED"
)

// Attempt is one lease of a task.
type Attempt struct {
	Number   int
	WorkerID string
	Started  time.Time
	Ended    time.Time // zero while it runs
	Outcome  Outcome
	Failure  *Failure
	Charged  bool // it counts against RetryPolicy.MaxFailures
}

// NewTask is a task to be added to a job.
type NewTask struct {
	Kind   TaskKind
	Output string  // name of the output it works for; empty for the whole job
	Part   int     // which chunk of the output, from 1; 0 for all of it
	Weight float64 // its share of the job's progress; 0 for none
	After  []int   // indexes, within the same call and below its own, of the tasks it waits for
}

// Task is the unit that is scheduled. Its id is the job's id, a dash and its
// index in the job, from 0 over all runs.
type Task struct {
	ID        string
	JobID     string
	Run       int
	Kind      TaskKind
	State     TaskState
	Output    string
	Part      int // as in NewTask
	Weight    float64
	Fraction  float64   // of its work that the attempt that runs has done, as it told last, 0 to 1
	Attempts  []Attempt // oldest first
	NotBefore time.Time // while DELAYED
	Result    *media.EncodeResult
}

// FaultClass is whose fault it is that an attempt failed.
type FaultClass string

// The classes of fault.
const (
	FaultInput   FaultClass = "INPUT"   // no worker can succeed
	FaultMachine FaultClass = "MACHINE" // another worker can; not charged
	FaultUnknown FaultClass = "UNKNOWN" // try again after a backoff; charged
)

// RetryPolicy says how often a task is tried and how long it rests between.
type RetryPolicy struct {
	MaxFailures int           // charged attempts before the task is dead
	MaxLosses   int           // workers that may be lost with a task before it is quarantined
	Backoff     time.Duration // of the first retry; doubles with each
	MaxBackoff  time.Duration
	Jitter      float64 // 0.2 is ± 20 %
}

// DefaultRetryPolicy returns the policy of the design.
func DefaultRetryPolicy() RetryPolicy {
	return RetryPolicy{MaxFailures: 4, MaxLosses: 2, Backoff: time.Second, MaxBackoff: time.Minute, Jitter: 0.2}
}
