package autoscale

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	firstBackoff = time.Second
	maxBackoff   = time.Minute
	// operatorPause is for what waits for an operator: it is tried now and then,
	// because nobody tells when the operator has acted.
	operatorPause = 10 * time.Minute
	// quietFor is how long a problem is shown that doesn't come again.
	quietFor = 10 * time.Minute
	// passing is the same for one that ends by itself.
	passing = time.Minute
)

// problemKey tells problems apart.
type problemKey struct {
	kind   pipeline.ProblemKind
	region string
}

// rest is for how long something is left alone, after how many failures.
type rest struct {
	until    time.Time
	failures int
}

// brakes are the problems there are, and what waits because of them.
type brakes struct {
	problems map[problemKey]*pipeline.Problem
	rests    map[string]rest // by machine, or stranger
	grow     rest            // no machine is created or started
	stop     time.Time       // the provider isn't called at all
}

func newBrakes() *brakes {
	return &brakes{problems: map[problemKey]*pipeline.Problem{}, rests: map[string]rest{}}
}

// resume takes over what the leader before told.
func (b *brakes) resume(problems []pipeline.Problem) {
	for _, p := range problems {
		b.problems[problemKey{p.Kind, p.Region}] = &p
	}
}

// growth reports whether growth rests, stopped whether everything does.
func (b *brakes) growth(now time.Time) bool  { return now.Before(b.grow.until) || b.stopped(now) }
func (b *brakes) stopped(now time.Time) bool { return now.Before(b.stop) }

func (b *brakes) resting(id string, now time.Time) bool {
	return b.stopped(now) || now.Before(b.rests[id].until)
}

// release ends what waits for an operator, or for anything.
func (b *brakes) release() {
	b.grow, b.stop = rest{}, time.Time{}
	clear(b.rests)
}

// next is when the first rest ends; zero if none does.
func (b *brakes) next(now time.Time) time.Time {
	var next time.Time
	for _, until := range append(b.untils(), b.grow.until, b.stop) {
		if until.After(now) && (next.IsZero() || until.Before(next)) {
			next = until
		}
	}
	return next
}

func (b *brakes) untils() []time.Time {
	untils := make([]time.Time, 0, len(b.rests))
	for _, r := range b.rests {
		untils = append(untils, r.until)
	}
	return untils
}

// longer returns the next, longer rest.
func (r rest) longer(now time.Time, atLeast, atMost time.Duration) rest {
	pause := max(atLeast, min(atMost, firstBackoff<<min(r.failures, 10)))
	return rest{until: now.Add(pause), failures: r.failures + 1}
}

// leave lets a machine alone for a while.
func (b *brakes) leave(id string, now time.Time, atLeast time.Duration) time.Time {
	b.rests[id] = b.rests[id].longer(now, atLeast, maxBackoff)
	return b.rests[id].until
}

// slow lets growth rest for a while.
func (b *brakes) slow(now time.Time, atLeast time.Duration) time.Time {
	b.grow = b.grow.longer(now, atLeast, max(atLeast, maxBackoff))
	return b.grow.until
}

// failed takes in a failure of a call about a machine, and returns the problem
// it means; none if it is no problem.
func (b *brakes) failed(call, id, region string, err error, now time.Time) pipeline.ProblemKind {
	kind := problemOf(machine.ClassOf(err))
	if kind == "" {
		return ""
	}
	after, next := retryAfter(err), time.Time{}
	growth := call == callCreate || call == callStart
	switch kind {
	case pipeline.ProblemUnauthorized:
		b.stop = now.Add(operatorPause)
		next = b.stop
	case pipeline.ProblemQuota:
		next = b.slow(now, operatorPause)
	case pipeline.ProblemHostFull: // another machine takes its place at once
	case pipeline.ProblemNotReady:
		next = b.leave(id, now, after)
	case pipeline.ProblemRateLimited, pipeline.ProblemNoCapacity, pipeline.ProblemUnreachable, pipeline.ProblemRefused:
		if growth {
			next = b.slow(now, after)
		} else if id != "" {
			next = b.leave(id, now, after)
		}
	case pipeline.ProblemNotBooting, pipeline.ProblemCrashed: // of machines, not of calls
	}
	if kind != pipeline.ProblemNoCapacity && kind != pipeline.ProblemQuota {
		region = ""
	}
	b.tell(kind, machine.MessageOf(err), region, id, next, now)
	return kind
}

// passed takes in that a region was passed over. Nothing waits because of it.
func (b *brakes) passed(region, id string, err error, now time.Time) {
	if kind := problemOf(machine.ClassOf(err)); kind != "" {
		b.tell(kind, machine.MessageOf(err), region, id, time.Time{}, now)
	}
}

// broke takes in that a machine failed by itself.
func (b *brakes) broke(kind pipeline.ProblemKind, id, message string, now time.Time) {
	b.tell(kind, message, "", id, b.slow(now, 0), now)
}

func (b *brakes) tell(kind pipeline.ProblemKind, message, region, id string, next, now time.Time) {
	key := problemKey{kind, region}
	p := b.problems[key]
	if p == nil {
		p = &pipeline.Problem{Kind: kind, Region: region, Since: stamp(now)}
		b.problems[key] = p
	}
	p.Message, p.MachineID, p.Last, p.Times = message, cmp.Or(id, p.MachineID), stamp(now), p.Times+1
	p.NextTry = time.Time{}
	if !next.IsZero() {
		p.NextTry = stamp(next)
	}
}

// stamp is a time as it is kept.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// reached says that the provider answered.
func (b *brakes) reached() {
	b.drop(pipeline.ProblemUnreachable, pipeline.ProblemUnauthorized)
	b.stop = time.Time{}
}

// made says that a machine was created, came that it came up, and ran that it
// has been up for a while.
func (b *brakes) made() {
	b.reached()
	b.drop(pipeline.ProblemNoCapacity, pipeline.ProblemQuota, pipeline.ProblemRefused, pipeline.ProblemRateLimited)
}

func (b *brakes) ran() {
	b.drop(pipeline.ProblemNotBooting)
	b.grow.failures = 0
}

func (b *brakes) drop(kinds ...pipeline.ProblemKind) {
	for key := range b.problems {
		if slices.Contains(kinds, key.kind) {
			delete(b.problems, key)
		}
	}
}

// list returns the problems there are, the oldest first, and forgets those
// that haven't come again.
func (b *brakes) list(now time.Time) []pipeline.Problem {
	var problems []pipeline.Problem
	for key, p := range b.problems {
		shown := quietFor
		switch key.kind {
		case pipeline.ProblemRateLimited, pipeline.ProblemNotReady, pipeline.ProblemUnreachable:
			shown = passing
		default:
		}
		if now.Sub(p.Last) > shown && !now.Before(p.NextTry) {
			delete(b.problems, key)
			continue
		}
		problems = append(problems, *p)
	}
	slices.SortFunc(problems, func(x, y pipeline.Problem) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Region, y.Region))
	})
	return problems
}

func problemOf(class machine.Class) pipeline.ProblemKind {
	switch class {
	case machine.RateLimited:
		return pipeline.ProblemRateLimited
	case machine.RegionFull:
		return pipeline.ProblemNoCapacity
	case machine.HostFull:
		return pipeline.ProblemHostFull
	case machine.Quota:
		return pipeline.ProblemQuota
	case machine.NotReady:
		return pipeline.ProblemNotReady
	case machine.Unauthorized:
		return pipeline.ProblemUnauthorized
	case machine.Unclear:
		return pipeline.ProblemUnreachable
	case machine.Refused:
		return pipeline.ProblemRefused
	case machine.NotFound, machine.NameTaken: // a machine is gone, or gets another name
	}
	return ""
}

func retryAfter(err error) time.Duration {
	if classed, ok := errors.AsType[*machine.Error](err); ok {
		return classed.RetryAfter
	}
	return 0
}
