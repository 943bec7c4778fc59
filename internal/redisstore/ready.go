package redisstore

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// readyFor is how long an answer of Redis is taken for the next. A control plane
// with nothing to do asks every 15 s, and is asked whether it is ready more often.
const readyFor = 20 * time.Second

// Ready reports whether Redis serves: it served a call within 20 s and
// has failed none since, or it does now. Errors: ReasonStateUnavailable.
func (s *Store) Ready(ctx context.Context) error {
	if at := s.answered.at.Load(); at != 0 && time.Since(time.Unix(0, at)) < readyFor {
		return nil
	}

	return s.Ping(ctx)
}

// answered notes when Redis served a call last. It is a hook of the client.
type answered struct{ at atomic.Int64 }

// note takes in how a call went. A server that says why it can't serve now
// doesn't.
func (a *answered) note(err error) {
	var reply redis.Error
	if err == nil || errors.As(err, &reply) && !passing(reply.Error()) {
		a.at.Store(time.Now().UnixNano())
	} else {
		a.at.Store(0)
	}
}

// DialHook changes nothing.
func (*answered) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook notes how a script or a PING went. A connection's greeting, which
// comes by here too, is answered by a server that doesn't serve yet.
func (a *answered) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if name := cmd.Name(); name == "evalsha" || name == "ping" {
			a.note(err)
		}

		return err
	}
}

// ProcessPipelineHook changes nothing.
func (*answered) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
