package worker

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

func durationOf(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// TestDrain guarantees that a worker which is told to stop finishes what ends
// within the grace, hands the rest back, and leaves once all is acknowledged.
func TestDrain(t *testing.T) {
	t.Parallel()

	for name, tell := range map[string]func(t *testing.T, b *bundle, s *planeStream){
		"by its owner": func(_ *testing.T, b *bundle, _ *planeStream) {
			b.worker.Drain()
			b.worker.Drain()
		},
		"by the control plane": func(t *testing.T, _ *bundle, s *planeStream) {
			t.Helper()
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Drain{Drain: &tcoderv1.Drain{Reason: "scale in"}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, func(cfg *Config) { cfg.Slots = 3 })
				s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
				runs := map[string]*run{}

				for _, id := range []string{"job-0", "job-1", "job-2"} {
					s.assign(t, task(id, 1))
					r := b.started(t)
					runs[r.Assignment.GetLease().GetTaskId()] = r
				}

				// After ten seconds job-2 has a minute and a half to go.
				<-time.After(10 * time.Second)
				runs["job-2"].Progress(&tcoderv1.TaskProgress{Lease: runs["job-2"].Assignment.GetLease(), Fraction: 0.1})

				start := time.Now()
				tell(t, b, s)
				first(t, s, getDraining)

				report := first(t, s, getReport)
				require.Equal(t, "job-2", report.GetLease().GetTaskId())
				require.NotNil(t, report.GetReleased(), "what won't end in time is handed back at once")
				require.Zero(t, time.Since(start))
				<-runs["job-2"].ended
				s.acknowledge(t, report.GetLease())

				s.assign(t, task("job-3", 1)) // it crossed
				report = first(t, s, getReport)
				require.Equal(t, "job-3", report.GetLease().GetTaskId())
				require.NotNil(t, report.GetReleased())
				s.acknowledge(t, report.GetLease())

				runs["job-0"].complete()
				report = first(t, s, getReport)
				require.Equal(t, "job-0", report.GetLease().GetTaskId())
				require.NotNil(t, report.GetProbe())
				s.acknowledge(t, report.GetLease())

				report = first(t, s, getReport)
				require.Equal(t, "job-1", report.GetLease().GetTaskId())
				require.NotNil(t, report.GetReleased())
				require.Equal(t, DefaultDrainGrace, time.Since(start))
				<-runs["job-1"].ended
				require.Empty(t, b.result, "it waits for the last answer")
				s.acknowledge(t, report.GetLease())

				s.hungUp(t)
				require.NoError(t, b.returned(t))
				require.Empty(t, b.runs)
			})
		})
	}
}

// TestDrainUnheard guarantees that a drain ends, and says so as well as it can,
// when the control plane is away or doesn't answer.
func TestDrainUnheard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 1))
		r := b.started(t)
		start := time.Now()

		b.worker.Drain()
		first(t, s, getDraining)
		s.cut(nil)

		s, hello := b.plane.welcomed(t, &tcoderv1.Welcome{})
		require.True(t, hello.GetDraining())
		require.NotNil(t, first(t, s, getReport).GetReleased())
		require.NoError(t, b.returned(t))
		require.InDelta(t, 8, time.Since(start).Seconds(), 0.1, "grace, wait for the answer, wait for the stream")
		require.Error(t, r.ctx.Err())
	})
}

// TestDrainDetached guarantees that a worker without a task or a control plane
// has nothing to wait for.
func TestDrainDetached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		b.plane.leave(true)

		<-time.After(10 * time.Second)

		start := time.Now()
		b.worker.Drain()
		require.NoError(t, b.returned(t))
		require.Less(t, time.Since(start), 2*time.Second)
	})
}

// TestStopNow guarantees that canceling Run stops tasks at once, also in a
// drain, and leaves nothing in the scratch folder.
func TestStopNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var scratchDir string

		b := setup(t, func(cfg *Config) { scratchDir = cfg.ScratchDir })
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 1))
		r := b.started(t)
		require.DirExists(t, r.dir)
		require.NoError(t, os.WriteFile(r.dir+"/half", []byte("x"), 0o600))

		b.worker.Drain()
		first(t, s, getDraining)

		start := time.Now()
		impatient := errors.New("second signal")
		b.cancel(impatient)
		require.ErrorIs(t, b.returned(t), impatient)
		require.Zero(t, time.Since(start))
		require.Error(t, r.ctx.Err())

		left, err := os.ReadDir(scratchDir)
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

// TestStopGivesUpParts guarantees that a task which is stopped while it writes an
// object in parts ends at once, however it is stopped and whether or not it has
// asked to give the parts up: nobody would answer it.
func TestStopGivesUpParts(t *testing.T) {
	t.Parallel()

	for name, stop := range map[string]func(t *testing.T, b *bundle, s *planeStream){
		"by the control plane": func(t *testing.T, _ *bundle, s *planeStream) {
			t.Helper()
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Stop{
				Stop: &tcoderv1.StopTask{Lease: task("job-0", 1).GetLease()},
			}})
		},
		"by a drain":   func(_ *testing.T, b *bundle, _ *planeStream) { b.worker.Drain() },
		"by its owner": func(_ *testing.T, b *bundle, _ *planeStream) { b.cancel(errors.New("second signal")) },
	} {
		for when, asksFirst := range map[string]bool{", before it asks": false, ", while it asks": true} {
			t.Run(name+when, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					ended := make(chan error, 1)
					b := setup(t, func(cfg *Config) {
						cfg.Execute = func(ctx context.Context, a Attempt) (*tcoderv1.TaskReport, error) {
							a.Progress(&tcoderv1.TaskProgress{Lease: a.Assignment.GetLease(), Fraction: 0.1})

							if !asksFirst {
								<-ctx.Done()
							}

							patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Hour)
							defer cancel()

							_, err := a.Parts(patient, &tcoderv1.EncodedObject{Name: "a"}, &tcoderv1.PartsStep{UploadId: "id", Abort: true})
							ended <- err

							return nil, err
						}
					})
					s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
					s.assign(t, task("job-0", 1))

					<-time.After(10 * time.Second) // a drain won't wait for the rest

					start := time.Now()

					stop(t, b, s)
					require.Error(t, <-ended)
					require.Zero(t, time.Since(start))
				})
			})
		}
	}
}

// TestTaskFaults guarantees that whatever a task does it ends in a report, and
// the next task runs.
func TestTaskFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(cfg *Config) { cfg.Slots = 1 })
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})

		fail := func(end func() (*tcoderv1.TaskReport, error)) *tcoderv1.Fault {
			assignment := task("job-0", 1)
			assignment.TimeLimit = durationOf(time.Minute)
			s.assign(t, assignment)

			r := b.started(t)
			if end != nil {
				r.finish <- end
			}

			report := first(t, s, getReport)
			s.acknowledge(t, report.GetLease())
			require.NoDirExists(t, r.dir)

			return report.GetFault()
		}

		fault := fail(func() (*tcoderv1.TaskReport, error) { panic("bug") })
		require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, fault.GetClass())
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_MACHINE_FAULT, fault.GetFailure().GetReason())
		require.NotContains(t, fault.GetFailure().GetMessage(), "bug")
		require.Contains(t, b.log.String(), "panic: bug")

		fault = fail(func() (*tcoderv1.TaskReport, error) {
			return nil, machineFault("The disk is full.", os.ErrClosed)
		})
		require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_MACHINE, fault.GetClass())
		require.Equal(t, "The disk is full.", fault.GetFailure().GetMessage())

		start := time.Now()
		fault = fail(nil) // until its time is up
		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, fault.GetFailure().GetReason())
		require.Equal(t, time.Minute, time.Since(start))

		for _, id := range []string{`"job_id":`, "job_id=job", "task_id=job-0", "attempt=1", "worker_id=w1"}[1:] {
			require.Contains(t, b.log.String(), id)
		}
	})
}

// TestSlots guarantees that no more tasks run than there are slots, even when
// one is assigned while a stopped one is still ending.
func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(cfg *Config) { cfg.Slots = 1 })
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 1))
		s.assign(t, task("job-1", 1))

		r := b.started(t)

		synctest.Wait()
		require.Empty(t, b.runs)
		require.Len(t, first(t, s, getHeartbeat).GetRunning(), 2, "the one that waits is held, too")
		r.complete()
		b.started(t)
	})
}

// TestScratchOfTheDead guarantees that a worker removes what killed ones left,
// and nothing that a living one needs.
func TestScratchOfTheDead(t *testing.T) {
	t.Parallel()

	base := t.TempDir()

	living, err := openScratch(base, "living")
	require.NoError(t, err)

	dead, err := openScratch(base, "dead")
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dead.dir+"/attempt-1/720p", 0o700))
	require.NoError(t, dead.lock.Close()) // as the kernel does for a process that dies

	mine, err := openScratch(base, "mine")
	require.NoError(t, err)
	require.DirExists(t, living.dir)
	require.NoDirExists(t, dead.dir)

	info, err := os.Stat(mine.dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	require.NoError(t, living.close())
	require.NoError(t, mine.close())

	left, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestNewID guarantees ULIDs: 26 characters that sort by time.
func TestNewID(t *testing.T) {
	t.Parallel()

	require.Regexp(t, "^01ARYZ6S41[0-9A-HJKMNP-TV-Z]{16}$", newID(time.UnixMilli(1469918176385)))

	one, other := newID(time.UnixMilli(1)), newID(time.UnixMilli(1))
	require.NotEqual(t, one, other)
	require.Less(t, newID(time.UnixMilli(1)), newID(time.UnixMilli(2)))
}

// TestNew guarantees that a configuration which can't work is refused before
// anything starts.
func TestNew(t *testing.T) {
	t.Parallel()

	_, log := newJournal()

	for name, cfg := range map[string]Config{
		"no server":      {Logger: log},
		"not a URL":      {Servers: []string{"127.0.0.1:8080"}, Logger: log},
		"no logger":      {Servers: []string{"http://127.0.0.1"}},
		"too many slots": {Servers: []string{"http://127.0.0.1"}, Logger: log, Slots: 65},
		"id is a path":   {Servers: []string{"http://127.0.0.1"}, Logger: log, WorkerID: "../x"},
	} {
		_, err := New(cfg)
		require.Error(t, err, name)
	}

	worker, err := New(Config{Servers: []string{"https://tcoder.example"}, Logger: log})
	require.NoError(t, err)
	require.Len(t, worker.ID(), 26)
}
