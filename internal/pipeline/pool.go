package pipeline

import (
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// Worker is a process that runs tasks.
type Worker struct {
	ID        string
	MachineID string // empty for a self-managed worker
	Version   string
	Slots     int
	CPUs      int
	Encoders  []media.VideoCodec
	Draining  bool
	Session   int64 // rises with each attach; a claim of an older one is refused
	Attached  bool  // false once its stream is cut
	FirstSeen time.Time
	LastSeen  time.Time
	Held      []LeaseRef
}

// Machine is a computer of the pool.
type Machine struct {
	ID         string
	State      MachineState
	Provider   string
	ProviderID string
	Region     string
	Created    time.Time
	Changed    time.Time
	Failure    *Failure
}

// MachineMove is a change of a machine.
type MachineMove struct {
	ID         string
	By         MachineTransition
	ProviderID string // set where given
	Region     string // set where given
	Failure    *Failure
	Term       int64 // of the leader that moves it; 0 if it needs no lead
}

// PoolStats counts what waits and what runs.
type PoolStats struct {
	ReadyTasks   int64 // those of projects at their limit aren't counted
	LimitedTasks int64 // they are here
	LeasedTasks  int64
	DelayedTasks int64
	OldestReady  time.Duration // since the oldest job with a ready task was queued, 0 if none
}

// Work is what tasks ask for. Weights are as in NewTask.
type Work struct {
	Probes       int // their jobs' encodes aren't known yet
	Encodes      int
	EncodeWeight float64
	Lights       int // all other tasks
	LightWeight  float64
}

// Tasks counts them.
func (w Work) Tasks() int { return w.Probes + w.Encodes + w.Lights }

// PoolView is the pool at one instant.
type PoolView struct {
	Stats    PoolStats
	Machines []Machine // by id
	Workers  []Worker  // seen within the last minute, by id
	Waiting  Work      // of ready tasks; of many, those beyond the first are like them
	Running  Work      // what is left of leased tasks
	// Done is the weight that leased tasks told to be done, Took the time of one
	// slot that they had for it. Both are 0 if nothing was told.
	Done float64
	Took time.Duration
	// JobWeight is the mean weight of the jobs that run; 0 if none is planned.
	JobWeight float64

	Change  PoolChange // of the settings
	Version int64      // of Change
	Report  PoolReport // the leader's
	Term    int64      // of the newest leader
	Now     time.Time  // by the store's clock
}

// ProblemKind is what keeps machines from coming, as the API's
// PoolProblemKind without its prefix.
type ProblemKind string

// The kinds of problem.
const (
	ProblemRateLimited  ProblemKind = "RATE_LIMITED"
	ProblemNoCapacity   ProblemKind = "NO_CAPACITY"
	ProblemHostFull     ProblemKind = "HOST_FULL"
	ProblemQuota        ProblemKind = "QUOTA"
	ProblemUnauthorized ProblemKind = "UNAUTHORIZED"
	ProblemNotBooting   ProblemKind = "NOT_BOOTING"
	ProblemCrashed      ProblemKind = "CRASHED"
	ProblemUnreachable  ProblemKind = "UNREACHABLE"
	ProblemRefused      ProblemKind = "REFUSED"
	ProblemNotReady     ProblemKind = "NOT_READY"
)

// Problem is one of them.
type Problem struct {
	Kind      ProblemKind `json:"kind"`
	Message   string      `json:"message"`              // a sentence
	Region    string      `json:"region,omitempty"`     // empty: it isn't about one
	MachineID string      `json:"machine_id,omitempty"` // the newest
	Since     time.Time   `json:"since"`
	Last      time.Time   `json:"last"`
	Times     int         `json:"times"`
	NextTry   time.Time   `json:"next_try,omitzero"` // zero: it waits for an operator, or for work
}

// PoolReport is what the leader tells of the pool.
type PoolReport struct {
	Desired     int           `json:"desired"` // machines that the work asks for, at most the limit
	HoldReason  string        `json:"hold_reason,omitempty"`
	Problems    []Problem     `json:"problems,omitempty"` // the oldest first
	WaitingWork time.Duration `json:"waiting_work,omitempty"`
	Speed       float64       `json:"speed,omitempty"`      // weight that a slot does in a second, as last measured
	JobWeight   float64       `json:"job_weight,omitempty"` // of a job, as last seen
}

// Pace is how often something may be done: Burst times at once, and once for
// each Every in the long run.
type Pace struct {
	Every time.Duration
	Burst int
}
