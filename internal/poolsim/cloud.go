package poolsim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"

	"github.com/tcoder-dev/tcoder/internal/machine"
	"github.com/tcoder-dev/tcoder/internal/machine/scripted"
)

// Cloud is how a provider behaves.
type Cloud struct {
	Name string
	// New and Again are how long a machine takes to run once it is created, and
	// once it is started again. Attach is what its worker takes from there.
	New, Again Latency
	Attach     time.Duration
	Stop       time.Duration // from the worker's end, or the call, until it has stopped
	Destroy    time.Duration
	PerSecond  float64 // calls that are taken: of each action on each machine, or on all for creations and lists
	Burst      int
	Pace       float64 // what callers keep to, a little less
	Faults     Faults
	Price      Price
}

// Latency is how long something takes.
type Latency struct {
	Least, Most time.Duration // any in between as likely
	Slow        float64       // the share that takes between SlowLeast and SlowMost instead
	SlowLeast   time.Duration
	SlowMost    time.Duration
}

// Faults are what goes wrong, as shares of the calls or starts; 0 is nothing.
type Faults struct {
	LostAnswers float64 // creations whose answer is lost though they took effect
	RegionFull  float64 // creations that are refused for want of room
	HostFull    float64 // starts of stopped machines that are refused for good
	Hangs       float64 // starts after which no worker comes
	// DiesPerHour is how likely a machine dies in an hour that it runs.
	DiesPerHour float64
}

// Price is what machines cost, in US dollars, as of a day.
type Price struct {
	AsOf       string
	PerSecond  float64 // of a machine that is being started, runs or is being stopped
	PerGBMonth float64 // of a stopped machine's disk, 30 days
	DiskGB     float64
}

// Fly is what is known of Fly Machines: 1 call a second with a burst of 3; 6 s
// from a creation to a running machine, some of them a low two-digit number;
// stopped machines start within 2 s. The price is that of a dedicated CPU 4x
// with 8 GB.
func Fly() Cloud {
	return Cloud{
		Name:   "fly",
		New:    Latency{Least: 4 * time.Second, Most: 8 * time.Second, Slow: 0.1, SlowLeast: 10 * time.Second, SlowMost: 15 * time.Second},
		Again:  Latency{Least: 500 * time.Millisecond, Most: 2 * time.Second},
		Attach: 500 * time.Millisecond, Stop: time.Second,
		Destroy:   250 * time.Millisecond, // 2 s, but eight at once, which are one by one here
		PerSecond: 1, Burst: 3, Pace: 0.9,
		Price: Price{AsOf: "2026-11-26, Fly's blog", PerSecond: 0.0000478, PerGBMonth: 0.15, DiskGB: 1},
	}
}

// UsualFaults are a bad day's.
func UsualFaults() Faults {
	return Faults{LostAnswers: 0.02, RegionFull: 0.05, HostFull: 0.02, Hangs: 0.02, DiesPerHour: 0.05}
}

// draw is one start.
func (l Latency) draw(dice *rand.Rand) time.Duration {
	between := func(least, most time.Duration) time.Duration {
		return wholeMS(least + time.Duration(dice.Float64()*float64(most-least)))
	}
	if slow := dice.Float64() < l.Slow; slow {
		return between(l.SlowLeast, l.SlowMost)
	}
	return between(l.Least, l.Most)
}

// least is the least that it can be.
func (l Latency) least() time.Duration {
	if l.Slow > 0 {
		return min(l.Least, l.SlowLeast)
	}
	return l.Least
}

// provider is the scripted one, asked as the adapter for Fly asks: no sooner
// than the limits allow. What goes wrong is decided here.
type provider struct {
	*scripted.Provider

	cloud   Cloud
	boots   *rand.Rand // how starts go
	calls   *rand.Rand // how calls go
	clock   func() time.Time
	wait    func(ctx context.Context, d time.Duration) error // in fake time
	buckets map[string]*rate.Limiter
	starts  int
	called  bool      // something was asked of a machine since changed was asked
	next    time.Time // when a machine changes by itself; zero: never
}

func newProvider(
	cloud Cloud, seed uint64, stopped []string, clock func() time.Time, wait func(context.Context, time.Duration) error,
) *provider {
	p := &provider{
		cloud: cloud,
		boots: rand.New(rand.NewPCG(seed, 2)), //nolint:gosec // the same seed has to give the same day
		calls: rand.New(rand.NewPCG(seed, 3)), //nolint:gosec // the same
		clock: clock, wait: wait, buckets: map[string]*rate.Limiter{}, called: true,
	}
	p.Provider = scripted.New(scripted.Config{
		Name: cloud.Name, Now: clock, Boot: p.boot, StopLatency: cloud.Stop, DestroyLatency: cloud.Destroy,
		PerSecond: cloud.PerSecond, Burst: cloud.Burst, Stopped: stopped,
	})
	return p
}

// Changes is nil: clouds don't tell.
func (p *provider) Changes() <-chan struct{} { return nil }

// changed reports whether machines may have changed since it was asked last.
func (p *provider) changed() bool {
	yes := p.called || !p.next.IsZero() && !p.next.After(p.clock())
	if yes {
		p.next, _ = p.Next()
		p.called = false
	}
	return yes
}

// end ends a machine's program.
func (p *provider) end(id string) {
	p.called = true
	p.End(id, false)
}

// boot is how one start goes. It draws as much whatever comes of it, so that
// the n-th start takes as long under any policy.
func (p *provider) boot(_ int, first bool) scripted.Boot {
	p.starts++
	latency := p.cloud.Again
	if first {
		latency = p.cloud.New
	}
	b := scripted.Boot{Latency: latency.draw(p.boots), Never: p.boots.Float64() < p.cloud.Faults.Hangs}
	if lives := p.boots.ExpFloat64(); p.cloud.Faults.DiesPerHour > 0 {
		b.LivesFor, b.Fails = max(time.Second, wholeMS(time.Duration(lives/p.cloud.Faults.DiesPerHour*float64(time.Hour)))), true
	}
	return b
}

func (p *provider) happens(share float64) bool { return p.calls.Float64() < share }

// pace waits until a call is in time.
func (p *provider) pace(ctx context.Context, op scripted.Op, id string) error {
	if p.cloud.Pace <= 0 {
		return nil
	}
	key := string(op) + " " + id
	bucket := p.buckets[key]
	if bucket == nil {
		bucket = rate.NewLimiter(rate.Limit(p.cloud.Pace), p.cloud.Burst)
		p.buckets[key] = bucket
	}
	now := p.clock()
	d := bucket.ReserveN(now, 1).DelayFrom(now)
	if d <= 0 {
		return nil
	}
	return p.wait(ctx, d.Truncate(time.Millisecond)+time.Millisecond)
}

// Create implements [machine.Provider].
func (p *provider) Create(ctx context.Context, req machine.CreateRequest) (string, error) {
	if err := p.pace(ctx, scripted.Create, ""); err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	full, lost := p.happens(p.cloud.Faults.RegionFull), p.happens(p.cloud.Faults.LostAnswers)
	switch {
	case full:
		p.Inject(scripted.Fault{Op: scripted.Create, Err: &machine.Error{Class: machine.RegionFull, Message: "The region is full."}})
	case lost:
		p.Inject(scripted.Fault{Op: scripted.Create, Effect: true, Err: &machine.Error{Class: machine.Unclear, Message: "The answer was lost."}})
	}
	p.called = true
	return p.Provider.Create(ctx, req)
}

// Start implements [machine.Provider].
func (p *provider) Start(ctx context.Context, id string) error {
	if err := p.pace(ctx, scripted.Start, id); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if p.happens(p.cloud.Faults.HostFull) {
		p.Inject(scripted.Fault{Op: scripted.Start, Err: &machine.Error{Class: machine.HostFull, Message: "The host is full."}})
	}
	p.called = true
	return p.Provider.Start(ctx, id)
}

// Stop implements [machine.Provider].
func (p *provider) Stop(ctx context.Context, id string) error {
	if err := p.pace(ctx, scripted.Stop, id); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	p.called = true
	return p.Provider.Stop(ctx, id)
}

// Destroy implements [machine.Provider]. It waits for a machine to go, as the
// adapter for Fly does.
func (p *provider) Destroy(ctx context.Context, id string) error {
	if err := p.pace(ctx, scripted.Destroy, id); err != nil {
		return fmt.Errorf("destroy: %w", err)
	}
	p.called = true
	err := p.Provider.Destroy(ctx, id)
	if machine.ClassOf(err) == machine.Unclear {
		if err := p.wait(ctx, p.cloud.Destroy); err != nil {
			return fmt.Errorf("destroy: %w", err)
		}
		p.called = true
		return p.Provider.Destroy(ctx, id)
	}
	return err
}

// Get implements [machine.Provider].
func (p *provider) Get(ctx context.Context, id string) (machine.Instance, error) {
	if err := p.pace(ctx, scripted.Get, id); err != nil {
		return machine.Instance{}, fmt.Errorf("get: %w", err)
	}
	return p.Provider.Get(ctx, id)
}

// List implements [machine.Provider].
func (p *provider) List(ctx context.Context) ([]machine.Instance, error) {
	if err := p.pace(ctx, scripted.List, ""); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	return p.Provider.List(ctx)
}
