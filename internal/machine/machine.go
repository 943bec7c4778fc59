// Package machine is the port to whatever makes the pool's computers: a
// [Provider] creates, starts, stops, destroys and lists machines. What a
// machine is for, how many there are and when one goes is decided elsewhere.
//
// The provider's list is the truth for existence: a record without an instance
// is a machine that is gone, an instance without a record is a leak.
//
// The conformance suite is in machinetest; the adapter for local child
// processes in process.
package machine

import (
	"context"
	"errors"
)

// The classes of failure a caller may act on; test with [errors.Is].
var (
	// ErrNotFound says that the provider has no such machine.
	ErrNotFound = errors.New("machine not found")
	// ErrCapacity says that the provider has no room for the machine now.
	ErrCapacity = errors.New("no capacity for a machine")
	// ErrUnavailable says that the provider couldn't be asked or didn't
	// answer. The call may have taken effect; repeating it is safe.
	ErrUnavailable = errors.New("machine provider unavailable")
)

// State is what an instance is doing, as its provider sees it.
type State string

// The states of an instance.
const (
	// Starting is between the request and the first instruction.
	Starting State = "STARTING"
	// Running means that the program was started, not that it serves.
	Running State = "RUNNING"
	// Stopping means that it was asked to stop and hasn't yet.
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
	// Region is where it shall be; empty leaves it to the provider.
	Region string
	// Env is added to the environment that the provider was configured with.
	Env map[string]string
}

// Instance is a machine that the provider has.
type Instance struct {
	ID         string // of its CreateRequest
	ProviderID string
	State      State
	Detail     string // for the log: why it Failed
}

// Provider makes machines. Methods are safe for concurrent use. Errors wrap
// one of the Err values of this package where one fits; one that wraps none
// means that repeating the call can't succeed.
type Provider interface {
	// Name names the provider in the API: process, fly.
	Name() string
	// Create makes a machine and starts it. Called again with the same ID, it
	// returns the machine that is there, whatever its state.
	// Errors: ErrCapacity, ErrUnavailable.
	Create(ctx context.Context, req CreateRequest) (providerID string, err error)
	// Start starts a Stopped or Failed machine; others are left alone.
	// Errors: ErrNotFound, ErrCapacity, ErrUnavailable.
	Start(ctx context.Context, providerID string) error
	// Stop asks a machine to stop and doesn't wait for it: its worker hands
	// back what it holds. A machine that doesn't obey is killed by its
	// provider in the end. One that has stopped is left alone.
	// Errors: ErrNotFound, ErrUnavailable.
	Stop(ctx context.Context, providerID string) error
	// Destroy removes a machine for good, without mercy if it runs. A machine
	// that isn't there is no error. Errors: ErrUnavailable.
	Destroy(ctx context.Context, providerID string) error
	// List returns all machines of this pool, in any order.
	// Errors: ErrUnavailable.
	List(ctx context.Context) ([]Instance, error)
	// Changes receives after a machine changed by itself: it ended. Changes
	// may be merged into one. Nil if the provider can't tell; the list has to
	// be read from time to time then, and should be anyway.
	Changes() <-chan struct{}
}
