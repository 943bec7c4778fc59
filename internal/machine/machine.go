// Package machine is the port to whatever makes the pool's computers: a
// [Provider] creates, starts, stops, destroys and lists machines. What a
// machine is for, how many there are and when one goes is decided elsewhere.
//
// The provider's list is the truth for existence: a record without an instance
// is a machine that is gone, an instance without a record is a leak.
//
// A failure is an [Error] of a [Class] that says what can be done about it. A
// provider doesn't repeat a call by itself: who calls knows how long the work
// can wait, and all calls can be repeated.
//
// The conformance suite is in machinetest. Adapters: process for local child
// processes, fly for Fly Machines, scripted for tests and simulations.
package machine

import (
	"context"
	"time"
)

// State is what an instance is doing, as its provider sees it.
type State string

// The states of an instance.
const (
	// Starting is between the request and the first instruction.
	Starting State = "STARTING"
	// Running means that the program was started, not that it serves.
	Running State = "RUNNING"
	// Stopping means that it was asked to stop, or to go for good, and hasn't
	// yet.
	Stopping State = "STOPPING"
	// Stopped means that it ended without an error. It can be started again.
	Stopped State = "STOPPED"
	// Failed means that it ended by itself with an error. It can be started
	// again.
	Failed State = "FAILED"
)

// CreateRequest asks for a machine that runs one worker.
type CreateRequest struct {
	// ID is the caller's name for the machine: letters, digits, '-' and '_',
	// 1 to 64 of them. It makes Create idempotent.
	ID string
	// Regions are where it may be, the preferred first: it is made in the first
	// that has room. Empty leaves it to the provider.
	Regions []string
	// Size names one of the sizes that the provider was configured with, or that
	// it knows; empty is its default. A provider without sizes ignores it.
	Size string
	// Env is added to the environment that the provider was configured with.
	Env map[string]string
	// Confirm is called right before whatever makes the machine, when all waiting
	// is over. Its error is the outcome, and nothing was made. May be nil.
	Confirm func() error
	// PassedOver is called before Create returns, for each region that was
	// preferred to the one where the machine is, with why it isn't there: a
	// RegionFull or Quota. May be nil.
	PassedOver func(region string, err error)
}

// Instance is a machine that the provider has.
type Instance struct {
	ID         string // of its CreateRequest
	ProviderID string
	State      State
	Detail     string // for the log: why it Failed, or what is odd about it
	Region     string // where it is; empty if the provider has no regions
	// Outdated says that it was made from another image, or with other
	// settings, than Create would use now: replace it when it is idle.
	Outdated bool
	// HostLost says that the provider can't see the computer it is on. State
	// is the last that was known; its worker may be well, or gone. Don't start
	// it.
	HostLost bool
	// Created is when it was made; zero if the provider doesn't say.
	Created time.Time
}

// Confirmed calls Confirm, if there is one.
func (r CreateRequest) Confirmed() error {
	if r.Confirm == nil {
		return nil
	}
	return r.Confirm()
}

// Provider makes machines. Methods are safe for concurrent use. Errors have a
// class (see [ClassOf]); the classes that matter are named at each method, and
// any may also fail as Unclear, RateLimited, Unauthorized or Refused.
type Provider interface {
	// Name names the provider in the API: process, fly.
	Name() string
	// CheckRegion and CheckSize say what is wrong with a name in a CreateRequest,
	// for the operator. Nil doesn't promise that there is room.
	CheckRegion(region string) error
	CheckSize(size string) error
	// Create makes a machine and starts it. Called again with the same ID, it
	// returns the machine that is there, whatever its state; so after an
	// Unclear outcome repeat it, or look for the ID in the list.
	// Errors: RegionFull, Quota, NameTaken.
	Create(ctx context.Context, req CreateRequest) (providerID string, err error)
	// Start starts a Stopped or Failed machine; one that runs is left alone.
	// Errors: NotFound, HostFull, NotReady.
	Start(ctx context.Context, providerID string) error
	// Stop asks a machine to stop and doesn't wait for it: its worker hands
	// back what it holds. A machine that doesn't obey is killed by its
	// provider in the end. One that has stopped is left alone.
	// Errors: NotFound, NotReady.
	Stop(ctx context.Context, providerID string) error
	// Destroy removes a machine for good, without mercy if it runs. It returns
	// nil once the machine can't run any more and its place is free; a machine
	// that isn't there is no error. Unclear may mean that it is still going.
	Destroy(ctx context.Context, providerID string) error
	// Get returns one machine. Errors: NotFound, also for one that was
	// destroyed.
	Get(ctx context.Context, providerID string) (Instance, error)
	// List returns all machines of this pool, in any order. A provider may be
	// late to show what happened in the last seconds.
	List(ctx context.Context) ([]Instance, error)
	// Changes receives after a machine changed by itself: it ended. Changes
	// may be merged into one. Nil if the provider can't tell; the list has to
	// be read from time to time then, and should be anyway.
	Changes() <-chan struct{}
}
