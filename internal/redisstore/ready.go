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

// Ready reports whether Redis answers: it has within 20 s and no call has failed
// since, or it does now. Errors: ReasonStateUnavailable.
func (s *Store) Ready(ctx context.Context) error {
	if at := s.answered.at.Load(); at != 0 && time.Since(time.Unix(0, at)) < readyFor {
		return nil
	}

	return s.Ping(ctx)
}

// answered notes when Redis answered last. It is a hook of the client.
type answered struct{ at atomic.Int64 }

func (a *answered) note(err error) {
	var refused redis.Error
	if err == nil || errors.As(err, &refused) { // redis.Nil, too
		a.at.Store(time.Now().UnixNano())
	} else {
		a.at.Store(0)
	}
}

// DialHook changes nothing.
func (*answered) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook notes how a command went.
func (a *answered) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		a.note(err)

		return err
	}
}

// ProcessPipelineHook notes how a pipeline went.
func (a *answered) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		a.note(err)

		return err
	}
}
