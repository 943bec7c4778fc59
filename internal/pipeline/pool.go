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

// PoolStats counts what waits and what runs.
type PoolStats struct {
	ReadyTasks   int64 // those of projects at their limit aren't counted
	LeasedTasks  int64
	DelayedTasks int64
	OldestReady  time.Duration // since the oldest job with a ready task was queued, 0 if none
}
