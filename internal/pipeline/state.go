package pipeline

// The transition tables are the only place that says which state follows
// which. The Lua includes and docs/state-machine.md are generated from them.

// JobState is the state of a job.
type JobState string

// The states of a job.
const (
	JobUploading JobState = "UPLOADING"
	JobPending   JobState = "PENDING"
	JobRunning   JobState = "RUNNING"
	JobCompleted JobState = "COMPLETED"
	JobFailed    JobState = "FAILED"
	JobCanceled  JobState = "CANCELED"
)

// JobTransition is what moves a job from one state to the next.
type JobTransition string

// The transitions of a job.
const (
	JobUploaded     JobTransition = "uploaded"      // the source is in the store
	JobUploadFailed JobTransition = "upload_failed" // the upload expired or its bytes are wrong
	JobStart        JobTransition = "start"         // a worker took its first task
	JobComplete     JobTransition = "complete"      // every output is published
	JobFail         JobTransition = "fail"          // a task is dead
	JobCancel       JobTransition = "cancel"        // a caller gave it up
	JobRetry        JobTransition = "retry"         // a caller wants another run
)

// TaskState is the state of a task.
type TaskState string

// The states of a task.
const (
	TaskBlocked  TaskState = "BLOCKED"
	TaskReady    TaskState = "READY"
	TaskLeased   TaskState = "LEASED"
	TaskDelayed  TaskState = "DELAYED"
	TaskDone     TaskState = "DONE"
	TaskDead     TaskState = "DEAD"
	TaskCanceled TaskState = "CANCELED"
)

// TaskTransition is what moves a task from one state to the next.
type TaskTransition string

// The transitions of a task.
const (
	TaskUnblock TaskTransition = "unblock" // the tasks before it are done
	TaskLease   TaskTransition = "lease"   // a worker takes it
	TaskFinish  TaskTransition = "finish"  // its result is accepted
	TaskRelease TaskTransition = "release" // its worker hands it back, or its machine was at fault
	TaskLose    TaskTransition = "lose"    // its lease ran out
	TaskRetry   TaskTransition = "retry"   // it failed and may succeed later
	TaskWake    TaskTransition = "wake"    // its backoff passed
	TaskKill    TaskTransition = "kill"    // it can't succeed
	TaskCancel  TaskTransition = "cancel"  // its job ended
)

// UploadState is the state of an upload.
type UploadState string

// The states of an upload.
const (
	UploadOpen      UploadState = "OPEN"
	UploadCompleted UploadState = "COMPLETED"
	UploadAborted   UploadState = "ABORTED"
	UploadExpired   UploadState = "EXPIRED"
	UploadFailed    UploadState = "FAILED"
)

// UploadTransition is what moves an upload from one state to the next.
type UploadTransition string

// The transitions of an upload.
const (
	UploadComplete UploadTransition = "complete" // HEAD proved its bytes
	UploadAbort    UploadTransition = "abort"    // the client, or a cancel of its job, gave it up
	UploadExpire   UploadTransition = "expire"   // its deadline passed
	UploadFail     UploadTransition = "fail"     // its bytes are not what was declared
)

// MachineState is the state of a machine.
type MachineState string

// The states of a machine.
const (
	MachineCreating  MachineState = "CREATING"
	MachineStarting  MachineState = "STARTING"
	MachineRunning   MachineState = "RUNNING"
	MachineDraining  MachineState = "DRAINING"
	MachineStopping  MachineState = "STOPPING"
	MachineStopped   MachineState = "STOPPED"
	MachineFailed    MachineState = "FAILED"
	MachineDestroyed MachineState = "DESTROYED"
)

// MachineTransition is what moves a machine from one state to the next.
type MachineTransition string

// The transitions of a machine.
const (
	MachineCreated MachineTransition = "created" // the provider has it, and it boots
	MachineAttach  MachineTransition = "attach"  // its worker holds a stream
	MachineDrain   MachineTransition = "drain"   // its worker takes nothing more
	MachineStop    MachineTransition = "stop"    // the provider is asked to stop it
	MachineExit    MachineTransition = "exit"    // it stopped and can start again
	MachineStart   MachineTransition = "start"   // the provider is asked to start it
	MachineBreak   MachineTransition = "break"   // it didn't start, or died
	MachineDestroy MachineTransition = "destroy" // the provider has it no more
)

// Transition is one row of a table: From, by By, to To.
type Transition[S, T ~string] struct {
	From S
	By   T
	To   S
}

// JobTransitions returns the table of jobs.
func JobTransitions() []Transition[JobState, JobTransition] {
	return []Transition[JobState, JobTransition]{
		{JobUploading, JobUploaded, JobPending},
		{JobUploading, JobUploadFailed, JobFailed},
		{JobUploading, JobCancel, JobCanceled},
		{JobPending, JobStart, JobRunning},
		{JobPending, JobCancel, JobCanceled},
		{JobRunning, JobComplete, JobCompleted},
		{JobRunning, JobFail, JobFailed},
		{JobRunning, JobCancel, JobCanceled},
		{JobFailed, JobRetry, JobPending},
		{JobCanceled, JobRetry, JobPending},
	}
}

// TaskTransitions returns the table of tasks.
func TaskTransitions() []Transition[TaskState, TaskTransition] {
	return []Transition[TaskState, TaskTransition]{
		{TaskBlocked, TaskUnblock, TaskReady},
		{TaskBlocked, TaskCancel, TaskCanceled},
		{TaskReady, TaskLease, TaskLeased},
		{TaskReady, TaskCancel, TaskCanceled},
		{TaskLeased, TaskFinish, TaskDone},
		{TaskLeased, TaskRelease, TaskReady},
		{TaskLeased, TaskLose, TaskReady},
		{TaskLeased, TaskRetry, TaskDelayed},
		{TaskLeased, TaskKill, TaskDead},
		{TaskLeased, TaskCancel, TaskCanceled},
		{TaskDelayed, TaskWake, TaskReady},
		{TaskDelayed, TaskCancel, TaskCanceled},
	}
}

// UploadTransitions returns the table of uploads.
func UploadTransitions() []Transition[UploadState, UploadTransition] {
	return []Transition[UploadState, UploadTransition]{
		{UploadOpen, UploadComplete, UploadCompleted},
		{UploadOpen, UploadAbort, UploadAborted},
		{UploadOpen, UploadExpire, UploadExpired},
		{UploadOpen, UploadFail, UploadFailed},
	}
}

// MachineTransitions returns the table of machines.
func MachineTransitions() []Transition[MachineState, MachineTransition] {
	return []Transition[MachineState, MachineTransition]{
		{MachineCreating, MachineCreated, MachineStarting},
		{MachineCreating, MachineBreak, MachineFailed},
		{MachineStarting, MachineAttach, MachineRunning},
		{MachineStarting, MachineBreak, MachineFailed},
		{MachineRunning, MachineDrain, MachineDraining},
		{MachineRunning, MachineStop, MachineStopping},
		{MachineRunning, MachineExit, MachineStopped},
		{MachineRunning, MachineBreak, MachineFailed},
		{MachineDraining, MachineStop, MachineStopping},
		{MachineDraining, MachineExit, MachineStopped},
		{MachineDraining, MachineBreak, MachineFailed},
		{MachineStopping, MachineExit, MachineStopped},
		{MachineStopping, MachineBreak, MachineFailed},
		{MachineStopped, MachineStart, MachineStarting},
		{MachineStopped, MachineDestroy, MachineDestroyed},
		{MachineFailed, MachineDestroy, MachineDestroyed},
	}
}

// Next returns the state that follows s by t, and false if nothing does.
func (s JobState) Next(t JobTransition) (JobState, bool) { return next(JobTransitions(), s, t) }

// Next returns the state that follows s by t, and false if nothing does.
func (s TaskState) Next(t TaskTransition) (TaskState, bool) { return next(TaskTransitions(), s, t) }

// Next returns the state that follows s by t, and false if nothing does.
func (s UploadState) Next(t UploadTransition) (UploadState, bool) {
	return next(UploadTransitions(), s, t)
}

// Next returns the state that follows s by t, and false if nothing does.
func (s MachineState) Next(t MachineTransition) (MachineState, bool) {
	return next(MachineTransitions(), s, t)
}

// Terminal reports whether a job in this state has ended.
func (s JobState) Terminal() bool {
	return s == JobCompleted || s == JobFailed || s == JobCanceled
}

func next[S, T ~string](table []Transition[S, T], from S, by T) (S, bool) {
	for _, row := range table {
		if row.From == from && row.By == by {
			return row.To, true
		}
	}

	return from, false
}
