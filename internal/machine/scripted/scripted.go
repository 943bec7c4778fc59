// Package scripted is a [machine.Provider] without machines: each does what a
// script says, in the time of a clock that the caller holds. It serves the
// tests and the simulation of whatever uses a provider.
//
// Nothing runs: a machine's state follows from the clock whenever somebody
// looks. [Provider.Next] tells a simulation when to look again.
package scripted

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// Op is a method of the provider.
type Op string

// The methods.
const (
	Create  Op = "create"
	Start   Op = "start"
	Stop    Op = "stop"
	Destroy Op = "destroy"
	Get     Op = "get"
	List    Op = "list"
)

// Boot is how one start of a machine goes.
type Boot struct {
	Latency time.Duration // from the call to Running
	Never   bool          // it stays Starting
	// LivesFor is how long it runs before it ends by itself, with an error if
	// Fails; 0 is until told.
	LivesFor time.Duration
	Fails    bool
}

// Config is the script.
type Config struct {
	Name string           // empty: scripted
	Now  func() time.Time // nil: the real clock
	// Boot says how the n-th start goes, counted from 0 over all machines; first
	// is of a new one. Nil: at once and well.
	Boot func(n int, first bool) Boot
	// StopLatency and DestroyLatency are how long a machine takes to stop, and
	// to be gone: it stays in the list as Stopping.
	StopLatency, DestroyLatency time.Duration
	// PerSecond and Burst limit calls, for each Op and machine, or all of them
	// for Create and List; 0 is no limit. A call too many is RateLimited.
	PerSecond float64
	Burst     int
	// Room is how many machines a region has room for; one that isn't named has
	// any.
	Room map[string]int
	// Stopped are the machines that are there from the beginning.
	Stopped []string
}

// Fault makes the next call of an Op fail.
type Fault struct {
	Op  Op
	Err error
	// Effect lets the call take effect first.
	Effect bool
	// Times is how often (0: once).
	Times int
}

// Provider is a [machine.Provider]. The zero value isn't one.
type Provider struct {
	cfg     Config
	changes chan struct{}

	mu        sync.Mutex
	instances []*instance // in the order of their creation
	faults    []*Fault
	boots     int
	made      int
	most      int
	ran       time.Duration // of those that ended
	buckets   map[string]*bucket
}

var _ machine.Provider = (*Provider)(nil)

// New starts nothing.
func New(cfg Config) *Provider {
	if cfg.Name == "" {
		cfg.Name = "scripted"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Boot == nil {
		cfg.Boot = func(int, bool) Boot { return Boot{} }
	}
	p := &Provider{cfg: cfg, changes: make(chan struct{}, 1), buckets: map[string]*bucket{}}
	for _, id := range cfg.Stopped {
		p.instances = append(p.instances, &instance{id: id, state: machine.Stopped, created: cfg.Now()})
	}
	p.most = len(p.instances)
	return p
}

// Name implements [machine.Provider].
func (p *Provider) Name() string { return p.cfg.Name }

// Changes implements [machine.Provider]: it receives on End, not when the clock
// has passed an end of the script.
func (p *Provider) Changes() <-chan struct{} { return p.changes }

// Inject adds a fault. Those of one Op happen in the order in which they were
// added.
func (p *Provider) Inject(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.Times = max(1, f.Times)
	p.faults = append(p.faults, &f)
}

// call is one call of a method: its limit, its fault, its effect.
func (p *Provider) call(ctx context.Context, op Op, id string, effect func(now time.Time) error) error {
	if ctx.Err() != nil {
		return &machine.Error{Class: machine.Unclear, Message: "Nobody waits for the answer.", Err: context.Cause(ctx)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	p.advance(now)
	if !p.allowed(op, id, now) {
		return &machine.Error{Class: machine.RateLimited, Message: "The provider was asked too often."}
	}
	at := slices.IndexFunc(p.faults, func(f *Fault) bool { return f.Op == op && f.Times > 0 })
	if at < 0 {
		return effect(now)
	}
	fault := p.faults[at]
	fault.Times--
	if fault.Effect {
		if err := effect(now); err != nil {
			return err
		}
	}
	return fault.Err
}

// CheckRegion implements [machine.Provider]: any will do.
func (p *Provider) CheckRegion(string) error { return nil }

// CheckSize implements [machine.Provider]: any will do.
func (p *Provider) CheckSize(string) error { return nil }

// Create implements [machine.Provider].
func (p *Provider) Create(ctx context.Context, req machine.CreateRequest) (string, error) {
	err := p.call(ctx, Create, "", func(now time.Time) error {
		if p.find(req.ID) != nil {
			return nil
		}
		if err := req.Confirmed(); err != nil {
			return err
		}
		region, found := p.place(req.Regions)
		if !found {
			return &machine.Error{Class: machine.RegionFull, Message: "The provider has no room in the pool's regions."}
		}
		if at := slices.Index(req.Regions, region); at > 0 && req.PassedOver != nil {
			for _, full := range req.Regions[:at] {
				req.PassedOver(full, &machine.Error{Class: machine.RegionFull, Message: "The provider has no room in " + full + "."})
			}
		}
		i := &instance{id: req.ID, region: region, created: now}
		p.instances = append(p.instances, i)
		p.made++
		p.most = max(p.most, len(p.instances))
		p.boot(i, now, true)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("create machine %s: %w", req.ID, err)
	}
	return req.ID, nil
}

// place returns the first region with room.
func (p *Provider) place(regions []string) (string, bool) {
	if len(regions) == 0 {
		return "", true
	}
	for _, region := range regions {
		room, bounded := p.cfg.Room[region]
		there := 0
		for _, i := range p.instances {
			if i.region == region {
				there++
			}
		}
		if !bounded || there < room {
			return region, true
		}
	}
	return "", false
}

// Start implements [machine.Provider].
func (p *Provider) Start(ctx context.Context, providerID string) error {
	return p.act(ctx, Start, providerID, func(i *instance, now time.Time) error {
		switch i.state {
		case machine.Stopping:
			return &machine.Error{Class: machine.NotReady, Message: "The machine is still stopping."}
		case machine.Stopped, machine.Failed:
			p.boot(i, now, false)
		case machine.Starting, machine.Running:
		}
		return nil
	})
}

// Stop implements [machine.Provider].
func (p *Provider) Stop(ctx context.Context, providerID string) error {
	return p.act(ctx, Stop, providerID, func(i *instance, now time.Time) error {
		if i.state == machine.Starting || i.state == machine.Running {
			p.move(i, machine.Stopping, now)
			i.plan = []step{{now.Add(p.cfg.StopLatency), machine.Stopped}}
			p.advance(now)
		}
		return nil
	})
}

// Destroy implements [machine.Provider]. It is Unclear while the machine takes
// its time to go.
func (p *Provider) Destroy(ctx context.Context, providerID string) error {
	err := p.act(ctx, Destroy, providerID, func(i *instance, now time.Time) error {
		if !i.going {
			p.move(i, machine.Stopping, now)
			i.going, i.plan = true, []step{{now.Add(p.cfg.DestroyLatency), gone}}
			p.advance(now)
		}
		if p.find(providerID) != nil {
			return &machine.Error{Class: machine.Unclear, Message: "The machine is still on its way out."}
		}
		return nil
	})
	if machine.ClassOf(err) == machine.NotFound {
		return nil
	}
	return err
}

// act is a call about one machine.
func (p *Provider) act(ctx context.Context, op Op, id string, effect func(*instance, time.Time) error) error {
	err := p.call(ctx, op, id, func(now time.Time) error {
		i := p.find(id)
		if i == nil {
			return &machine.Error{Class: machine.NotFound, Message: "There is no such machine."}
		}
		return effect(i, now)
	})
	if err != nil {
		return fmt.Errorf("%s machine %s: %w", op, id, err)
	}
	return nil
}

// Get implements [machine.Provider].
func (p *Provider) Get(ctx context.Context, providerID string) (machine.Instance, error) {
	var found machine.Instance
	err := p.act(ctx, Get, providerID, func(i *instance, _ time.Time) error {
		found = i.view()
		return nil
	})
	return found, err
}

// List implements [machine.Provider].
func (p *Provider) List(ctx context.Context) ([]machine.Instance, error) {
	list := []machine.Instance{}
	err := p.call(ctx, List, "", func(time.Time) error {
		for _, i := range p.instances {
			list = append(list, i.view())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	return list, nil
}

// Instances returns the machines there are, for whoever plays what runs on
// them: unlike List it isn't a call of the API, and never fails.
func (p *Provider) Instances() []machine.Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance(p.cfg.Now())
	list := make([]machine.Instance, 0, len(p.instances))
	for _, i := range p.instances {
		list = append(list, i.view())
	}
	return list
}

// End ends the program of a running machine by itself, as when a worker leaves
// or crashes. It reports whether it ran.
func (p *Provider) End(id string, fails bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	p.advance(now)
	i := p.find(id)
	if i == nil || i.state != machine.Running {
		return false
	}
	i.plan = nil
	p.move(i, ending(fails), now)
	select {
	case p.changes <- struct{}{}:
	default: // one is waiting to be read already
	}
	return true
}

// SetOutdated says that all machines there are were made with old settings.
func (p *Provider) SetOutdated() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.instances {
		i.outdated = true
	}
}
