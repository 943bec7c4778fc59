package scripted

import (
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// gone is the state of a machine that isn't there any more.
const gone machine.State = "GONE"

// instance is one machine, guarded by Provider.mu.
type instance struct {
	id, region string
	created    time.Time
	state      machine.State
	detail     string
	outdated   bool
	going      bool      // it is being destroyed
	plan       []step    // what comes by itself
	busySince  time.Time // since it isn't at rest
}

type step struct {
	at    time.Time
	state machine.State
}

func (i *instance) view() machine.Instance {
	return machine.Instance{
		ID: i.id, ProviderID: i.id, State: i.state, Detail: i.detail, Region: i.region, Outdated: i.outdated, Created: i.created,
	}
}

func (p *Provider) find(id string) *instance {
	for _, i := range p.instances {
		if i.id == id {
			return i
		}
	}
	return nil
}

// boot plans a start.
func (p *Provider) boot(i *instance, now time.Time, first bool) {
	how := p.cfg.Boot(p.boots, first)
	p.boots++
	p.move(i, machine.Starting, now)
	i.plan = nil
	if how.Never {
		return
	}
	up := now.Add(how.Latency)
	i.plan = append(i.plan, step{up, machine.Running})
	if how.LivesFor > 0 {
		i.plan = append(i.plan, step{up.Add(how.LivesFor), ending(how.Fails)})
	}
	p.advance(now)
}

func ending(fails bool) machine.State {
	if fails {
		return machine.Failed
	}
	return machine.Stopped
}

// advance takes every step that is due.
func (p *Provider) advance(now time.Time) {
	for _, i := range p.instances {
		for len(i.plan) > 0 && !i.plan[0].at.After(now) {
			next := i.plan[0]
			i.plan = i.plan[1:]
			p.move(i, next.state, next.at)
		}
	}
	p.instances = slices.DeleteFunc(p.instances, func(i *instance) bool { return i.state == gone })
}

// move sets a state, and counts how long machines were busy.
func (p *Provider) move(i *instance, state machine.State, at time.Time) {
	before := busy(i.state)
	i.state, i.detail = state, ""
	if state == machine.Failed {
		i.detail = "it ended with an error"
	}
	switch after := busy(state); {
	case after && !before:
		i.busySince = at
	case before && !after:
		p.ran += at.Sub(i.busySince)
	}
}

// busy reports whether a machine in a state is paid for.
func busy(state machine.State) bool {
	return state == machine.Starting || state == machine.Running || state == machine.Stopping
}

// Next returns when a machine will next change by itself, and false if none
// will.
func (p *Provider) Next() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance(p.cfg.Now())
	var next time.Time
	for _, i := range p.instances {
		if len(i.plan) > 0 && (next.IsZero() || i.plan[0].at.Before(next)) {
			next = i.plan[0].at
		}
	}
	return next, !next.IsZero()
}

// Totals are what a script has come to.
type Totals struct {
	Made int           // machines, ever
	Most int           // machines at once
	Ran  time.Duration // of all machines: from their start to their end
}

// Totals returns the totals up to now.
func (p *Provider) Totals() Totals {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	p.advance(now)
	ran := p.ran
	for _, i := range p.instances {
		if busy(i.state) {
			ran += now.Sub(i.busySince)
		}
	}
	return Totals{Made: p.made, Most: p.most, Ran: ran}
}

// bucket is what is left of a limit.
type bucket struct {
	tokens float64
	at     time.Time
}

// allowed takes from the bucket of an Op and a machine.
func (p *Provider) allowed(op Op, id string, now time.Time) bool {
	if p.cfg.PerSecond == 0 {
		return true
	}
	key := string(op) + " " + id
	b := p.buckets[key]
	if b == nil {
		b = &bucket{tokens: float64(p.cfg.Burst), at: now}
		p.buckets[key] = b
	}
	b.tokens = min(float64(p.cfg.Burst), b.tokens+now.Sub(b.at).Seconds()*p.cfg.PerSecond)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
