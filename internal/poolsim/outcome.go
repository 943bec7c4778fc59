package poolsim

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/poolsim/bound"
)

// Spread is how something is spread over jobs.
type Spread struct {
	P50 time.Duration
	P95 time.Duration
	Max time.Duration
}

// Outcome is what came of a trace.
type Outcome struct {
	Trace string
	About string
	Seed  uint64
	Limit int
	Jobs  int
	Wall  time.Duration // from the first job's coming to the last one's end
	// Wait is from a job's coming until its first task after the probe, Took until its end.
	Wait Spread
	Took Spread
	// Needed is the machine time of the trace's tasks, Used that of all
	// machines, of which Tail are the idle times that ended with a machine's stop.
	Needed time.Duration
	Used   time.Duration
	Tail   time.Duration
	// Kept is the time of stopped machines.
	Kept time.Duration
	// Made and Starts count machines and their starts, Most those at once.
	Made    int
	Starts  int
	Most    int
	Running int     // machines, at the end
	Lost    int     // attempts that ended without a result
	Cost    float64 // US dollars
	Price   string  // as of when
	Points  []Point
}

// Overhead is the machine time used, the tails apart, over that needed.
func (o Outcome) Overhead() float64 {
	if o.Needed <= 0 {
		return 0
	}
	return (o.Used - o.Tail).Seconds() / o.Needed.Seconds()
}

// Point is the pool from an instant on.
type Point struct {
	At      time.Duration
	Waiting int // tasks that are ready
	Coming  int // machines that were asked for and take no tasks yet
	Busy    int
	Idle    int
	Stopped int
}

// tally gathers what comes to pass.
type tally struct {
	machines  map[string]machine.State
	waits     []time.Duration
	took      []time.Duration
	tail      time.Duration
	kept      time.Duration
	keptUntil time.Duration
	lost      int
	points    []Point
}

// note adds the instant to the pool's history.
func (s *simulation) note(ctx context.Context) {
	p := Point{At: s.now.Sub(s.start)}
	for _, state := range s.tally.machines {
		switch state {
		case machine.Stopped:
			p.Stopped++
		case machine.Starting, machine.Running, machine.Stopping:
			p.Coming++
		case machine.Failed:
		}
	}
	for _, w := range s.workers {
		switch {
		case !w.attached:
			continue
		case len(w.held) > 0:
			p.Busy++
		default:
			p.Idle++
		}
		p.Coming--
	}
	p.Waiting = s.waiting(ctx)
	if n := len(s.tally.points); n > 0 {
		last := &s.tally.points[n-1]
		s.tally.kept += time.Duration(last.Stopped) * (p.At - s.tally.keptUntil)
		s.tally.keptUntil = p.At
		same := *last
		same.At = p.At
		switch {
		case same == p:
			return
		case last.At == p.At:
			*last = p
			return
		}
	}
	s.tally.points = append(s.tally.points, p)
}

// outcome sums up.
func (s *simulation) outcome(ctx context.Context) Outcome {
	s.note(ctx)
	totals := s.cloud.Totals()
	o := Outcome{
		Trace: s.cfg.Trace.Name, About: s.cfg.Trace.About, Seed: s.cfg.Seed, Limit: s.cfg.Policy.Settings.Limit,
		Jobs: len(s.tally.took), Wall: s.doneAt.Sub(s.start), Wait: spreadOf(s.tally.waits), Took: spreadOf(s.tally.took),
		Needed: s.cfg.Trace.Work() / time.Duration(s.cfg.Policy.Slots), Used: totals.Ran, Tail: s.tally.tail, Kept: s.tally.kept,
		Made: totals.Made, Starts: s.cloud.starts, Most: totals.Most, Lost: s.tally.lost, Points: s.tally.points,
		Price: s.cfg.Cloud.Price.AsOf,
	}
	if len(s.cfg.Trace.Jobs) > 0 {
		o.Wall -= s.cfg.Trace.Jobs[0].At
	}
	for _, i := range s.cloud.Instances() {
		if i.State != machine.Stopped {
			o.Running++
		}
	}
	const month = 30 * 24 * time.Hour
	price := s.cfg.Cloud.Price
	o.Cost = price.PerSecond*o.Used.Seconds() + price.PerGBMonth*price.DiskGB*o.Kept.Hours()/month.Hours()
	return o
}

// spreadOf is the spread of some durations.
func spreadOf(all []time.Duration) Spread {
	sorted := slices.Sorted(slices.Values(all))
	if len(sorted) == 0 {
		return Spread{}
	}
	at := func(share float64) time.Duration { return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)] }
	return Spread{P50: at(0.5), P95: at(0.95), Max: sorted[len(sorted)-1]}
}

// LeastWait is what a share of the jobs has to wait under any policy, for a
// trace that is one burst; 0 for others. See the package bound.
func (c Config) LeastWait(share float64) time.Duration {
	tasks := make([]time.Duration, 0, len(c.Trace.Jobs))
	for _, j := range c.Trace.Jobs {
		if j.At != c.Trace.Jobs[0].At || len(j.Tasks) != 1 || c.Stopped > 0 {
			return 0
		}
		tasks = append(tasks, j.Tasks[0].Takes)
	}
	return bound.BurstWait(bound.Pool{
		Limit: c.Policy.Settings.Limit, Slots: max(1, c.Policy.Slots), PerSecond: c.Cloud.PerSecond, Burst: c.Cloud.Burst,
		Start: c.Cloud.New.least() + c.Cloud.Attach,
	}, tasks, share)
}
