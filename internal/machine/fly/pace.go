package fly

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/time/rate"
)

// Action is a kind of call, as Fly's rate limits tell them apart.
type Action string

// The actions.
const (
	ActionCreate  Action = "create"
	ActionList    Action = "list"
	ActionGet     Action = "get"
	ActionStart   Action = "start"
	ActionStop    Action = "stop"
	ActionDestroy Action = "destroy"
	ActionWait    Action = "wait"
)

// Pace waits until a call may be made: of an action, on a machine, or on the
// app where machineID is empty. Replicas of a control plane share Fly's limits,
// so they should share what is behind it.
type Pace func(ctx context.Context, action Action, machineID string) error

// Requests per second, and how many may come at once. Fly's limits are 1 with 3
// and 5 with 10; a tenth stays unused, because calls don't arrive at the
// intervals at which they were sent.
const (
	perSecond    = 0.9
	burst        = 3
	getPerSecond = 4.5
	getBurst     = 10
	// mostBuckets bounds what is remembered of machines.
	mostBuckets = 1000
)

// LocalPace keeps this process within Fly's limits.
func LocalPace() Pace {
	var mu sync.Mutex
	buckets := map[string]*rate.Limiter{}
	bucket := func(action Action, machineID string) *rate.Limiter {
		mu.Lock()
		defer mu.Unlock()
		key := string(action) + " " + machineID
		if b := buckets[key]; b != nil {
			return b
		}
		if len(buckets) >= mostBuckets {
			for key, b := range buckets {
				if b.Tokens() >= float64(b.Burst()) {
					delete(buckets, key) // as good as new
				}
			}
		}
		b := rate.NewLimiter(perSecond, burst)
		if action == ActionGet {
			b = rate.NewLimiter(getPerSecond, getBurst)
		}
		buckets[key] = b
		return b
	}
	return func(ctx context.Context, action Action, machineID string) error {
		if err := bucket(action, machineID).Wait(ctx); err != nil {
			return fmt.Errorf("rate limit of %s: %w", action, err)
		}
		return nil
	}
}
