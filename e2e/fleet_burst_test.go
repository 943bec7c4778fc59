package e2e_test

import (
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/flytest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// A burst of jobs guarantees machines from none to exactly the limit and back
// to none, whatever the cloud and the control planes do meanwhile: answers are
// lost, refused and late, a machine never boots, one dies with its task, and
// the leader is paused until another one leads, and goes on then. No job is
// lost, none is charged, no machine is leaked, and there is never one too many.
func TestFleet(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	require.Zero(t, f.cloud.Counts().Created)
	f.cloud.SetListLag(time.Second)
	f.cloud.StickNext(1)
	f.cloud.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.Refusal(502, "bad gateway"), Effect: true})
	f.cloud.Inject(flytest.Fault{Op: flytest.Create, Cut: true, Effect: true})
	f.cloud.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.RegionFull()})
	f.cloud.Inject(flytest.Fault{Op: flytest.List, Answer: flytest.RateLimited()})
	f.submit(t, 5)
	f.pauseLeader(t)
	f.killBusy(t)
	f.finish(t)
	f.rest(t)
	require.Zero(t, f.cloud.Pending(), "there were fewer calls than faults")

	// What was kept stopped is started, or replaced where it can't be: then the next burst meets what is left of the faults.
	f.cloud.Inject(flytest.Fault{Op: flytest.Start, Answer: flytest.NotReady("created")})
	f.cloud.Inject(flytest.Fault{Op: flytest.Start, Answer: flytest.HostFull()})
	f.cloud.Inject(flytest.Fault{Op: flytest.Create, Answer: flytest.NoCapacity()})
	for range 3 {
		if f.cloud.Pending() > 0 {
			f.keeps(t)
			f.fill(t)
		}
	}
	require.Zero(t, f.cloud.Pending())
	require.Equal(t, fleetLimit, f.cloud.Counts().MostExisting)
	require.Equal(t, 1, f.limited(), "more than was injected: the control planes don't share the limits of calls")
	f.upgrade(t)
}

// keeps waits until only the machines that are kept stopped are there.
func (f *fleet) keeps(t *testing.T) {
	t.Helper()
	f.eventually(t, "no machine is kept", func() bool { return f.cloud.Counts().Existing == fleetKept })
}

// fill has the pool grow to its limit, and waits for its rest.
func (f *fleet) fill(t *testing.T) {
	t.Helper()
	f.eventually(t, "the limit isn't reached", func() bool {
		if f.pool(t).Stats.ReadyTasks == 0 {
			f.submit(t, 4)
		}

		return f.cloud.Counts().Processes == fleetLimit
	})
	f.finish(t)
	f.rest(t)
}

// upgrade takes another image for the machines: what is kept of the old one
// goes, and what comes then has the new one.
func (f *fleet) upgrade(t *testing.T) {
	t.Helper()
	f.keeps(t)
	for _, r := range f.replicas {
		r.Stop(t, syscall.SIGTERM)
		r.args[slices.Index(r.args, fleetImage)] = "worker@sha256:2"
		r.start(t)
	}
	f.eventually(t, "an old machine is kept", func() bool { return f.cloud.Counts().Existing == 0 })
	f.submit(t, 1)
	f.finish(t)
	f.rest(t)
	f.keeps(t)
}

// killBusy kills a machine in the middle of a task.
func (f *fleet) killBusy(t *testing.T) {
	t.Helper()
	f.eventually(t, "no machine died with a task", func() bool {
		view := f.pool(t)
		if view.Stats.ReadyTasks == 0 {
			f.submit(t, 2)
		}
		machines := map[string]pipeline.Machine{}
		for _, m := range view.Machines {
			machines[m.ID] = m
		}
		for _, w := range view.Workers {
			m, known := machines[w.MachineID]
			if !known || m.ProviderID == "" || len(w.Held) == 0 {
				continue
			}
			f.cloud.Exit(m.ProviderID, 1)

			return f.gaveBack(t, w.Held[0])
		}

		return false
	})
}

// gaveBack waits until an attempt has ended, and tells whether it was cut short.
func (f *fleet) gaveBack(t *testing.T, ref pipeline.LeaseRef) bool {
	t.Helper()
	var outcome tcoderv1.AttemptOutcome
	f.eventually(t, "nobody noticed that a machine died", func() bool {
		for _, id := range f.jobs {
			job, err := f.client(t).GetJob(t.Context(), id)
			require.NoError(t, err)
			for _, task := range job.GetTasks() {
				if task.GetId() == ref.TaskID {
					outcome = task.GetAttempts()[ref.Attempt-1].GetOutcome()
				}
			}
		}

		return outcome != tcoderv1.AttemptOutcome_ATTEMPT_OUTCOME_UNSPECIFIED
	})

	return outcome != tcoderv1.AttemptOutcome_ATTEMPT_OUTCOME_DONE
}

// pauseLeader pauses the leader as it asks for its first machine, until the
// other replica leads and has asked for one, too.
func (f *fleet) pauseLeader(t *testing.T) {
	t.Helper()
	term := f.pool(t).Term
	created := func() int { return len(f.cloud.Calls(flytest.Create)) }
	f.eventually(t, "no machine is asked for", func() bool { return created() > 0 })
	f.replicas[0].Signal(syscall.SIGSTOP)
	var before int
	f.eventually(t, "nobody takes the lead", func() bool {
		seen := created()
		if f.pool(t).Term > term {
			return true // who leads may have asked before this look
		}
		before = seen

		return false
	})
	f.eventually(t, "the new leader asks for none", func() bool { return created() > before })
	f.replicas[0].Signal(syscall.SIGCONT)
}

// TestFleetLong is each fault by itself, with a leader that is killed: for
// `make test-fleet`.
func TestFleetLong(t *testing.T) {
	t.Parallel()
	if os.Getenv("TCODER_FLEET") != "long" {
		return
	}
	for name, fault := range map[string]flytest.Fault{
		"create answered 502":     {Op: flytest.Create, Answer: flytest.Refusal(502, "bad gateway"), Effect: true},
		"create refused by 500":   {Op: flytest.Create, Answer: flytest.Refusal(500, "internal")},
		"create cut off":          {Op: flytest.Create, Cut: true, Effect: true},
		"create never arrives":    {Op: flytest.Create, Cut: true},
		"create 409":              {Op: flytest.Create, Answer: flytest.NoCapacity()},
		"create 422":              {Op: flytest.Create, Answer: flytest.RegionFull()},
		"create 429":              {Op: flytest.Create, Answer: flytest.RateLimited()},
		"list 503":                {Op: flytest.List, Answer: flytest.Refusal(503, "unavailable"), Times: 2},
		"get 500":                 {Op: flytest.Get, Answer: flytest.Refusal(500, "internal")},
		"destroy answered 502":    {Op: flytest.Destroy, Answer: flytest.Refusal(502, "bad gateway"), Effect: true},
		"destroy never arrives":   {Op: flytest.Destroy, Cut: true},
		"the end is not answered": {Op: flytest.Wait, Cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, "--fly-keep-stopped", "0")
			f.cloud.Inject(fault)
			f.submit(t, 4)
			f.eventually(t, "no machine comes", func() bool { return f.cloud.Counts().Processes > 0 })
			f.replicas[0].Kill()
			f.replicas[0].start(t)
			f.finish(t)
			f.rest(t)
			require.Zero(t, f.cloud.Pending())
		})
	}
}
