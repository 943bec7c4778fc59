package tcoder

import (
	"context"
	"math/rand/v2"
	"time"
)

// RetryPolicy says how calls and transfers are repeated when the other side
// can't be reached or is overloaded. Each pause is drawn between half and one
// and a half of a delay that doubles from FirstDelay to MaxDelay.
type RetryPolicy struct {
	// FirstDelay is the first pause. Default 200 ms.
	FirstDelay time.Duration
	// MaxDelay bounds the delay. Default 5 s.
	MaxDelay time.Duration
	// Patience is how long failures in a row are borne once the server has
	// answered this client. Default 1 min.
	Patience time.Duration
	// FirstPatience is the same for a server that never answered. Default 2 s.
	FirstPatience time.Duration
}

func (p RetryPolicy) withDefaults() RetryPolicy {
	set := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	set(&p.FirstDelay, 200*time.Millisecond)
	set(&p.MaxDelay, 5*time.Second)
	set(&p.Patience, time.Minute)
	set(&p.FirstPatience, 2*time.Second)

	return p
}

// retrier counts failures in a row.
type retrier struct {
	policy    RetryPolicy
	patience  time.Duration
	delay     time.Duration
	startedAt time.Time
}

// newRetrier starts counting, with the patience that the server has earned.
func (c *Client) newRetrier() *retrier {
	patience := c.retry.FirstPatience
	if c.reached.Load() {
		patience = c.retry.Patience
	}

	return &retrier{policy: c.retry, patience: patience}
}

// wait pauses before the next try, at least for the given time. False: give up.
func (r *retrier) wait(ctx context.Context, atLeast time.Duration) bool {
	now := time.Now()
	if r.startedAt.IsZero() {
		r.startedAt = now
		r.delay = r.policy.FirstDelay
	}
	pause := max(atLeast, r.delay/2+rand.N(r.delay+1)) //nolint:gosec // jitter, not a secret
	if now.Add(pause).Sub(r.startedAt) > r.patience {
		return false
	}
	r.delay = min(2*r.delay, r.policy.MaxDelay)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// reset forgets the failures: something worked.
func (r *retrier) reset(patience time.Duration) {
	*r = retrier{policy: r.policy, patience: patience}
}
