package autoscale

import (
	"context"
	"reflect"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// reportEvery is the least time between two reports that differ in estimates alone.
	reportEvery = 15 * time.Second
	// steadyAfter is when a machine that runs has shown that machines do.
	steadyAfter = 30 * time.Second
)

// report tells all replicas what the pool wants and what keeps it from it.
func (r *Reconciler) report(ctx context.Context, s Snapshot, actions []Action) {
	f := fleetOf(s)
	want, _ := missing(s, &f)
	now := r.deps.Now()
	report := pipeline.PoolReport{
		Desired:  min(s.Settings.Limit, f.there+f.coming+want),
		Problems: r.brakes.list(now),
		Speed:    r.speed, JobWeight: r.jobWeight,
	}
	if s.Work.Ready > 0 {
		report.WaitingWork = s.Work.Waiting.Round(time.Second)
	}
	if want > growth(actions) {
		report.HoldReason = holdReason(s, report.Problems, now)
	}
	r.metrics.saw(s, report)
	if !r.worthTelling(report, now) {
		return
	}
	if err := r.deps.Store.ReportPool(ctx, report, r.term); err != nil {
		r.deps.Log.DebugContext(ctx, "pool report can't be kept", "error", err)
		return
	}
	r.told, r.toldAt = report, now
}

func (r *Reconciler) worthTelling(report pipeline.PoolReport, now time.Time) bool {
	still := report
	still.WaitingWork, still.Speed, still.JobWeight = r.told.WaitingWork, r.told.Speed, r.told.JobWeight
	if !reflect.DeepEqual(still, r.told) {
		return true
	}
	return report.WaitingWork != r.told.WaitingWork && now.Sub(r.toldAt) >= reportEvery
}

func holdReason(s Snapshot, problems []pipeline.Problem, now time.Time) string {
	if s.Hold {
		for _, p := range problems {
			if now.Before(p.NextTry) {
				return p.Message
			}
		}
		return "Machines can't be created at the moment."
	}
	if len(s.Machines) >= s.Settings.Limit {
		return "The pool is at its limit of machines."
	}
	return ""
}

// growth counts the machines that actions add.
func growth(actions []Action) int {
	n := 0
	for _, a := range actions {
		if a.Kind == Start || a.Kind == Create && a.MachineID == "" {
			n++
		}
	}
	return n
}

// fleetOf sorts the machines of a snapshot.
func fleetOf(s Snapshot) fleet {
	f := fleet{}
	for _, m := range s.Machines {
		action, boots := upkeep(s, m)
		f.count(m, action.Kind, boots)
	}
	return f
}
