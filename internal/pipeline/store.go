package pipeline

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// Store keeps the state of uploads, jobs, tasks, leases and the pool. Every
// method is one atomic step. Each may be repeated after a lost answer: a
// replay changes nothing and gives the first answer, unless said otherwise.
// Its clock is the only one for deadlines.
//
// Methods return *Error with the reason named in their comment, and
// ReasonStateUnavailable when the store can't be reached.
type Store interface {
	UploadStore
	JobStore
	LeaseStore
	StreamStore
	PoolStore
	SweepStore
	Notices
}

// Admission says on what terms a job is taken in.
type Admission struct {
	// IdempotencyKey makes the repeat of a create safe. Empty: none.
	IdempotencyKey string
	Fingerprint    string        // of the request; the same key with another one is refused
	KeyTTL         time.Duration // how long the key is kept
	// WaitingLimit is how many jobs of the project may be UPLOADING or PENDING
	// at most, this one included. 0: any number. A replay isn't refused.
	WaitingLimit int
}

// UploadURLLife is how long a client's URL to write may work: what it writes
// after its job was deleted is purged when none works any more.
const UploadURLLife = time.Hour

// UploadStore keeps uploads. Times of the given records are ignored: the
// store's clock sets them.
type UploadStore interface {
	// CreateUpload writes an upload that expires after ttl, and its job in
	// UPLOADING. With a known idempotency key it returns the first upload.
	// Errors: ReasonIdempotencyKeyReused, ReasonQueueFull.
	CreateUpload(ctx context.Context, u Upload, j Job, ttl time.Duration, a Admission) (Upload, error)
	// GetUpload returns an upload. Errors: ReasonUploadNotFound.
	GetUpload(ctx context.Context, id string) (Upload, error)
	// CompleteUpload moves an open upload to COMPLETED and its job to PENDING
	// with the given task ready. An upload that is already complete is
	// returned as it is.
	// Errors: ReasonUploadNotFound, ReasonUploadExpired, ReasonUploadAborted,
	// ReasonUploadSizeMismatch (it FAILED before).
	CompleteUpload(ctx context.Context, id string, sizeBytes int64, etag string, first NewTask) (Upload, error)
	// EndUpload moves an open upload by UploadAbort, UploadExpire or
	// UploadFail, and its job to CANCELED or FAILED with the failure. Ending
	// an upload again the same way returns it as it is.
	// Errors: ReasonUploadNotFound, ReasonUploadCompleted,
	// ReasonUploadExpired, ReasonUploadAborted, ReasonUploadSizeMismatch (it
	// FAILED before).
	EndUpload(ctx context.Context, id string, by UploadTransition, f Failure) (Upload, error)
}

// JobFilter chooses jobs of a list.
type JobFilter struct {
	Project string
	States  []JobState // empty: all
	Before  string     // only ids below this one; empty: from the newest
	Limit   int
}

// JobStore keeps jobs.
type JobStore interface {
	// CreateJob writes a job in PENDING with the given task ready. With a
	// known idempotency key it returns the first job. A source that names an
	// upload shares its object: it is removed with the last job that does.
	// Errors: ReasonIdempotencyKeyReused, ReasonQueueFull,
	// ReasonObjectNotFound (its upload is gone).
	CreateJob(ctx context.Context, j Job, first NewTask, a Admission) (Job, error)
	// GetJob returns a job with its tasks. Errors: ReasonJobNotFound.
	GetJob(ctx context.Context, id string) (Job, error)
	// ListJobs returns jobs by descending id, without tasks and the objects
	// of outputs.
	ListJobs(ctx context.Context, f JobFilter) ([]Job, error)
	// JobEvents returns the events after a sequence, oldest first. Events
	// beyond the newest 1,000 may be gone. Errors: ReasonJobNotFound.
	JobEvents(ctx context.Context, id string, after int64) ([]Event, error)
	// CancelJob moves a live job to CANCELED, its tasks with it, and aborts
	// its open upload. A canceled job is returned as it is.
	// Errors: ReasonJobNotFound, ReasonJobTerminal.
	CancelJob(ctx context.Context, id string) (Job, error)
	// RetryJob starts the next run of a FAILED or CANCELED job whose source
	// is in the store, with the given task ready. expectRun is the run that
	// ended; a job that is already one further is returned as it is.
	// waitingLimit is as in Admission.
	// Errors: ReasonJobNotFound, ReasonJobNotTerminal, ReasonJobTerminal (it
	// COMPLETED), ReasonInputMissing (its upload never completed),
	// ReasonQueueFull.
	RetryJob(ctx context.Context, id string, expectRun int, first NewTask, waitingLimit int) (Job, error)
	// DeleteJob removes a terminal job, its tasks, events and upload, and
	// leaves a DutyPurge for its objects. Until that is ended, a replay
	// succeeds.
	// Errors: ReasonJobNotFound, ReasonJobNotTerminal.
	DeleteJob(ctx context.Context, id string) error
	// CompleteJob publishes a job whose tasks of this run are all done: it
	// moves to COMPLETED with its outputs and its DutyPublish ends. One that
	// wasn't playable before is now. False if the job is not in that run or not
	// RUNNING; a replay returns true.
	CompleteJob(ctx context.Context, id string, run int, outputs []media.Output) (bool, error)
}

// Claim asks for tasks for one worker.
type Claim struct {
	RequestID string // unique per claim, so that a replay gets the first answer
	WorkerID  string
	Session   int64 // of the worker's attach; an older one gets nothing
	Max       int
	Lease     time.Duration
	// RunningLimit is how many tasks of one project may be leased at a time. 0: any number.
	RunningLimit int
}

// Claimed is the answer to a claim.
type Claimed struct {
	Leases  []Lease
	More    bool // tasks that a claim could get are still ready
	Refused bool // the worker is given nothing: see ClaimTasks
}

// Lease is a task leased to a worker.
type Lease struct {
	Ref     LeaseRef
	Task    Task
	Job     Job // with Spec, Source, Probe and Plan; without Tasks and Outputs
	Expires time.Time
}

// Renewal renews one lease and tells its progress.
type Renewal struct {
	Ref      LeaseRef
	Fraction float64  // of the task, 0 to 1
	Progress Progress // Percent is ignored
}

// Renewed is the answer to a renewal.
type Renewed struct {
	Lost []LeaseRef
	// Watched says that somebody watches one of the jobs: progress is worth
	// telling as it happens.
	Watched bool
}

// Verdict is what a store says to a write that names a lease.
type Verdict string

// The verdicts.
const (
	VerdictAccepted Verdict = "ACCEPTED" // it took effect, now or when it was first sent
	VerdictStale    Verdict = "STALE"    // the lease is not, or no longer, the worker's; nothing changed
)

// TaskResult is what an accepted result adds to its job.
type TaskResult struct {
	Ref      LeaseRef
	WorkerID string
	Result   *media.EncodeResult // encode tasks
	Probe    *media.Probe        // probe tasks
	Plan     *media.Plan         // probe tasks
	Tasks    []NewTask           // probe tasks: the plan's
	Outputs  []media.Output      // of the job, if they are all this task's and nothing is to be published: see OutputsOf
}

// TaskFault is how an attempt failed.
type TaskFault struct {
	Ref      LeaseRef
	WorkerID string
	Class    FaultClass
	Failure  Failure
	Retry    RetryPolicy
}

// LeaseStore keeps tasks and leases. Every write names its lease; a stale
// one changes nothing.
type LeaseStore interface {
	// ClaimTasks leases up to Max ready tasks to a worker, best first: by
	// priority; within one, in turn between projects; within a project, the
	// oldest job first, and its tasks by index. Projects at their limit are
	// passed over. The first lease of a job moves it to RUNNING. None are given
	// to a worker that is draining, unknown, cut off, or attached in a newer
	// session. An empty answer binds nothing: a replay may be given tasks.
	ClaimTasks(ctx context.Context, c Claim) (Claimed, error)
	// RenewLeases renews leases of a worker for another period, marks it as
	// seen and takes their progress in. A lease that would gain less than a
	// second, or a sixteenth of its length if that is less, stays as it is,
	// unless somebody watches its job; so does a worker all of whose leases do.
	// One that would end sooner is written.
	RenewLeases(ctx context.Context, workerID string, lease time.Duration, rs []Renewal) (Renewed, error)
	// FinishTask ends an attempt with its result. When the last task of the
	// run is done, lastOfRun is true and the job has a DutyPublish; or, if the
	// result has outputs, it is COMPLETED with them. Of another task they are ignored.
	FinishTask(ctx context.Context, r TaskResult) (v Verdict, lastOfRun bool, err error)
	// FailTask ends an attempt with a fault: the task is DELAYED, READY (the
	// first in a row that is the machine's fault) or DEAD (charged too often,
	// or the 10th machine's fault in a row, of which a missing encoder that
	// another worker has is none); a dead task fails its job.
	FailTask(ctx context.Context, f TaskFault) (Verdict, error)
	// ReleaseTask hands an attempt back, not charged, however often: the task
	// is READY.
	ReleaseTask(ctx context.Context, workerID string, ref LeaseRef) (Verdict, error)
}

// PoolStore keeps workers and machines.
type PoolStore interface {
	// AttachWorker records a worker's new stream and returns its session.
	// Of the leases that it holds, those that are its own are renewed and
	// returned, for so much less that their next renewal is written; leases of
	// it that it doesn't hold are released: their assignment was lost on the
	// way. An attempt that it holds and that was taken back when its lease ran
	// out didn't take it down: that counts as a fault of its machine, not as a
	// loss, unless these were as many in a row as a task survives. Its machine
	// moves to RUNNING.
	// Errors: ReasonPermissionDenied if a worker of another machine has the id.
	AttachWorker(ctx context.Context, w Worker, lease time.Duration) (session int64, kept []Lease, err error)
	// DetachWorker says that a worker's stream of this session is cut. gone
	// says that it exits and holds nothing: it is forgotten.
	DetachWorker(ctx context.Context, id string, session int64, gone bool) error
	// DrainWorker marks a worker: it is given nothing more.
	// Errors: ReasonWorkerNotFound.
	DrainWorker(ctx context.Context, id string) (Worker, error)
	// LeaveWorker marks a worker as draining if it holds no lease, in one
	// step, and reports whether it may exit. One that nobody knows may. While
	// minWarm or fewer workers of machines take tasks, none of them may.
	LeaveWorker(ctx context.Context, id string, session int64, minWarm int) (bool, error)
	// ListWorkers returns the workers seen within the last minute, by id.
	ListWorkers(ctx context.Context) ([]Worker, error)
	// ReserveMachine writes a machine in CREATING, with the provider's id if it
	// is there already, unless there are limit machines, in whatever state;
	// false then. A machine that is there already is a replay: true.
	// Errors: ReasonLeaseLost (the term is another leader's now).
	ReserveMachine(ctx context.Context, m Machine, limit int, term int64) (bool, error)
	// MoveMachine moves a machine, and sets its provider's id, its region and
	// its failure where given. A machine whose state has no such transition
	// stays there, which a replay relies on. DESTROYED forgets it; destroying it
	// again says DESTROYED.
	// Errors: ReasonMachineNotFound, ReasonLeaseLost (the term is another
	// leader's now: nothing changed).
	MoveMachine(ctx context.Context, m MachineMove) (Machine, error)
	// ListMachines returns the machines, by id.
	ListMachines(ctx context.Context) ([]Machine, error)
	// GetMachine returns a machine. Errors: ReasonMachineNotFound.
	GetMachine(ctx context.Context, id string) (Machine, error)
	// LoseMachine releases, not charged and not as a loss, every lease of the
	// workers of a machine that the provider says is gone, and forgets them. It
	// counts as the machine's fault: a task that takes its machines down dies.
	// Errors: ReasonLeaseLost.
	LoseMachine(ctx context.Context, id string, term int64) error
	// ReadPool reads all of the pool at one instant.
	ReadPool(ctx context.Context) (PoolView, error)
	// ChangePool replaces the changed settings if they are of that version
	// still, and wakes everybody. Equal settings are a replay.
	ChangePool(ctx context.Context, c PoolChange, version int64) (bool, error)
	// ReportPool keeps what the leader tells. Errors: ReasonLeaseLost.
	ReportPool(ctx context.Context, r PoolReport, term int64) error
	// PoolStats counts tasks.
	PoolStats(ctx context.Context) (PoolStats, error)
	// TakeTurn takes the next turn at something that all replicas together may
	// do at a pace, and returns how long it is until the turn comes. False if that
	// would be longer than most: no turn is taken then. A replay takes another.
	TakeTurn(ctx context.Context, name string, p Pace, most time.Duration) (time.Duration, bool, error)
}

// DutyKind is work outside the store that a state change left to do.
type DutyKind string

// The kinds of duty.
const (
	DutyExpireUpload DutyKind = "EXPIRE_UPLOAD" // ID is an upload past its deadline: complete or expire it
	DutyPublish      DutyKind = "PUBLISH"       // ID is a job whose tasks are done: write manifests, CompleteJob
	DutyStream       DutyKind = "STREAM"        // ID is a job whose stream grew, or ended without success: StreamPublished
	DutyClean        DutyKind = "CLEAN"         // ID is a terminal job: remove objects that no output names
	DutyPurge        DutyKind = "PURGE"         // ID is a deleted job: remove all its objects
)

// Duty is one such piece of work. It comes again until it is ended.
type Duty struct {
	Kind    DutyKind
	ID      string
	Project string
	Source  Source // DutyPurge
	// Unreadable is why what is stored of it can't be read; nil if it can.
	Unreadable error
}

// SweepRequest says who sweeps and by what rules.
type SweepRequest struct {
	Replica   string
	LeaderTTL time.Duration
	Lease     time.Duration
	Retry     RetryPolicy
	Retention time.Duration // terminal jobs are deleted after it; 0: never
	// Attached are the workers whose streams this replica holds: they are
	// marked as seen, whoever leads.
	Attached []string
	// Term is that of the last sweep if this process led then, else 0.
	Term int64
	// Busy puts off for a minute what is to be removed: so much waits for its
	// turn that what jobs wait for would stand behind it.
	Busy bool
}

// Swept is what a sweep did and what it leaves to do.
type Swept struct {
	Leader   bool // false: another replica sweeps, nothing was done
	Requeued int  // leases that ran out
	Dead     int  // tasks that were quarantined
	Retired  int  // jobs that were deleted: their retention is over
	Woken    int  // delayed tasks that are ready again
	Duties   []Duty
	Term     int64         // of the leader: it rises whenever another process comes to lead
	NextDue  time.Duration // until the next deadline; at most the leader's ttl, and a third of a lease while there are any
}

// SweepStore finds what time has made due.
type SweepStore interface {
	// Sweep does what is due if the replica is, or becomes, the leader for its
	// ttl: leases that ran out are requeued or quarantined by the policy,
	// delayed tasks wake, terminal jobs past their retention are deleted as by
	// DeleteJob, duties are handed out for a minute, a DutyStream for 10 s. After a pause in which
	// nobody swept for longer than half a lease, it first renews all leases
	// once, so that an outage of the control plane costs no attempt.
	Sweep(ctx context.Context, r SweepRequest) (Swept, error)
	// EndDuty ends a duty but a DutyStream, which StreamPublished ends, unless
	// it is still to do: that of an upload that is
	// open, of a job whose tasks are done and that isn't published, one that
	// was left again meanwhile, and the purge of a job that ended a moment ago,
	// which comes once more when no URL to write can live.
	EndDuty(ctx context.Context, d Duty) error
	// Resign gives leadership up at once.
	Resign(ctx context.Context, replica string) error
}

// JobNotice says that a job changed. Notices can be lost or merged; truth is
// read from the store. An empty one says that some were lost: read again.
type JobNotice struct {
	Sequence int64     // newest event, 0 for progress alone
	Run      int       // that Progress is of
	Progress *Progress // percent and share of the job, the rest as the task told that told last; nil if that didn't change
}

// Wake says why the control plane should look.
type Wake string

// The wake-ups.
const (
	WakeReady  Wake = "READY"  // a task is ready
	WakeDue    Wake = "DUE"    // a deadline earlier than the sweeper's next was set
	WakeWorker Wake = "WORKER" // a worker was told to drain, or a lease was taken from one
	WakePool   Wake = "POOL"   // the pool's settings were changed
)

// Notices tells of changes as they happen, on any replica.
type Notices interface {
	// WatchJob returns notices of one job until ctx ends. The channel is
	// closed then.
	WatchJob(ctx context.Context, id string) (<-chan JobNotice, error)
	// Wakes returns the wake-ups of the deployment until ctx ends. After a
	// reconnect it wakes for everything once. The channel is closed at the end.
	Wakes(ctx context.Context) (<-chan Wake, error)
}
