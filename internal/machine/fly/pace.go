package fly

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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
// so they should share what is behind it: see SharedPace.
type Pace func(ctx context.Context, action Action, machineID string) error

// How often calls are made. Fly's limits are once a second with 3 at once, and
// 5 times with 10; a tenth and one of those at once stay unused, because calls
// don't arrive at the intervals at which they were sent.
const (
	every    = time.Second * 10 / 9
	burst    = 2
	getEvery = time.Second * 10 / 45
	getBurst = 9
	// mostWait is how long a turn is waited for in a call without a deadline.
	mostWait = time.Minute
	// mostBuckets bounds what is remembered of machines.
	mostBuckets = 1000
)

// limits are how often an action may be taken, and how many times at once.
func (a Action) limits() (time.Duration, int) {
	if a == ActionGet {
		return getEvery, getBurst
	}
	return every, burst
}

// Turns takes the next of some turns that come once every so often, and so
// many at once, and returns how long it is until then; false if that would be
// longer than most, and no turn is taken.
type Turns func(ctx context.Context, name string, every time.Duration, burst int, most time.Duration) (time.Duration, bool, error)

var errTooLong = errors.New("the next turn comes too late")

// SharedPace keeps all who share turns within Fly's limits together. While
// turns can't be taken, each keeps within them alone.
func SharedPace(take Turns) Pace {
	alone := LocalPace()
	return func(ctx context.Context, action Action, machineID string) error {
		most := mostWait
		if deadline, has := ctx.Deadline(); has {
			most = time.Until(deadline)
		}
		every, burst := action.limits()
		wait, taken, err := take(ctx, bucketName(action, machineID), every, burst, most)
		switch {
		case err != nil:
			return alone(ctx, action, machineID)
		case !taken:
			return fmt.Errorf("rate limit of %s: %w", action, errTooLong)
		case wait == 0:
			return nil
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("rate limit of %s: %w", action, context.Cause(ctx))
		}
	}
}

func bucketName(action Action, machineID string) string { return string(action) + " " + machineID }

// LocalPace keeps this process within Fly's limits.
func LocalPace() Pace {
	var mu sync.Mutex
	buckets := map[string]*rate.Limiter{}
	bucket := func(action Action, machineID string) *rate.Limiter {
		mu.Lock()
		defer mu.Unlock()
		key := bucketName(action, machineID)
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
		every, burst := action.limits()
		b := rate.NewLimiter(rate.Every(every), burst)
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
