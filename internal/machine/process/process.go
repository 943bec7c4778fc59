// Package process makes machines of the local computer: each is a child
// process that runs a worker. It is the pool of `tcoder up`.
//
// A child has its own process group, so Ctrl-C in a terminal reaches only the
// control plane, which stops its children in its own order. Nothing of our
// environment is passed on: a worker reads hostile input and gets only what it
// is given. When the control plane dies without a chance to stop anything
// (kill -9), the kernel sends the children SIGTERM (Linux), which a worker
// answers by handing back its tasks and ending.
//
// A provider knows its own children alone, so a deployment with this provider
// has one control plane. After a restart its list is empty: the machines of
// the life before are gone.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

const defaultStopTimeout = 30 * time.Second

// Config says what a machine runs.
type Config struct {
	// Command is the program and its arguments. Secrets go into Env: anybody
	// on the computer can read arguments.
	Command []string
	// Env is the whole environment of a child, as "name=value".
	Env []string
	// Dir is the working directory; empty means ours.
	Dir string
	// Output receives what children print. The file itself is handed to them,
	// so open it for appending. Nil discards it.
	Output *os.File
	// StopTimeout is the time between SIGTERM and SIGKILL (0: 30 s).
	StopTimeout time.Duration
	Log         *slog.Logger
}

// Provider is a [machine.Provider]. It works while Run does.
type Provider struct {
	cfg     Config
	changes chan struct{}
	spawns  chan func()
	ended   chan struct{} // closed once Run stops taking spawns
	reaped  sync.WaitGroup

	mu       sync.Mutex
	children map[string]*child // by machine id
}

// New starts nothing; Run does.
func New(cfg Config) (*Provider, error) {
	if len(cfg.Command) == 0 {
		return nil, errors.New("machine process: no command")
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = defaultStopTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Provider{
		cfg:      cfg,
		changes:  make(chan struct{}, 1),
		spawns:   make(chan func()),
		ended:    make(chan struct{}),
		children: map[string]*child{},
	}, nil
}

// CheckRegion implements [machine.Provider].
func (p *Provider) CheckRegion(string) error {
	return errors.New("the machines of this pool are processes of one computer, without regions")
}

// CheckSize implements [machine.Provider].
func (p *Provider) CheckSize(string) error {
	return errors.New("the machines of this pool are processes of one computer, without sizes")
}

// Run makes the provider work until ctx ends, then stops every child: SIGTERM,
// and SIGKILL after the stop timeout. It returns nil when all are gone. Call
// it once.
func (p *Provider) Run(ctx context.Context) error {
	// The kernel's parent-death signal fires when the thread that started a
	// child ends, so one thread that lives as long as any child starts all.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	for ctx.Err() == nil {
		select {
		case spawn := <-p.spawns:
			spawn()
		case <-ctx.Done():
		}
	}
	close(p.ended)
	p.mu.Lock()
	for _, c := range p.children {
		c.stop(p.cfg.StopTimeout)
	}
	p.mu.Unlock()
	p.reaped.Wait()
	return nil
}

// onThread runs f on the thread of Run.
func (p *Provider) onThread(ctx context.Context, f func() error) error {
	result := make(chan error, 1)
	select {
	case p.spawns <- func() { result <- f() }:
		return <-result
	case <-p.ended:
		return fmt.Errorf("%w: it is shutting down", machine.ErrUnavailable)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", machine.ErrUnavailable, context.Cause(ctx))
	}
}

// Name implements [machine.Provider].
func (p *Provider) Name() string { return "process" }

// Changes implements [machine.Provider].
func (p *Provider) Changes() <-chan struct{} { return p.changes }

// Create implements [machine.Provider]. The provider's id is the machine's:
// a process id changes with every start.
func (p *Provider) Create(ctx context.Context, req machine.CreateRequest) (string, error) {
	err := p.onThread(ctx, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if _, ok := p.children[req.ID]; ok {
			return nil
		}
		if err := req.Confirmed(); err != nil {
			return err
		}
		env := slices.Clone(p.cfg.Env)
		for name, value := range req.Env {
			env = append(env, name+"="+value)
		}
		c := &child{id: req.ID, env: env, created: time.Now()}
		if err := p.spawn(c); err != nil {
			return err
		}
		p.children[req.ID] = c
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("create machine %s: %w", req.ID, err)
	}
	return req.ID, nil
}

// Start implements [machine.Provider].
func (p *Provider) Start(ctx context.Context, providerID string) error {
	err := p.onThread(ctx, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		c, ok := p.children[providerID]
		if !ok {
			return machine.ErrNotFound
		}
		switch c.state {
		case machine.Starting, machine.Running:
			return nil
		case machine.Stopping:
			return &machine.Error{Class: machine.NotReady, Message: "The machine is still stopping."}
		case machine.Stopped, machine.Failed:
		}
		return p.spawn(c)
	})
	if err != nil {
		return fmt.Errorf("start machine %s: %w", providerID, err)
	}
	return nil
}

// Stop implements [machine.Provider].
func (p *Provider) Stop(_ context.Context, providerID string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.children[providerID]
	if !ok {
		return fmt.Errorf("stop machine %s: %w", providerID, machine.ErrNotFound)
	}
	c.stop(p.cfg.StopTimeout)
	return nil
}

// Destroy implements [machine.Provider].
func (p *Provider) Destroy(_ context.Context, providerID string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.children[providerID]; ok {
		c.kill()
		delete(p.children, providerID)
	}
	return nil
}

// Get implements [machine.Provider].
func (p *Provider) Get(_ context.Context, providerID string) (machine.Instance, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.children[providerID]
	if !ok {
		return machine.Instance{}, fmt.Errorf("get machine %s: %w", providerID, machine.ErrNotFound)
	}
	return c.instance(), nil
}

// List implements [machine.Provider].
func (p *Provider) List(context.Context) ([]machine.Instance, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	instances := make([]machine.Instance, 0, len(p.children))
	for _, c := range p.children {
		instances = append(instances, c.instance())
	}
	slices.SortFunc(instances, func(a, b machine.Instance) int { return strings.Compare(a.ID, b.ID) })
	return instances, nil
}
