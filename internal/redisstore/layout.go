package redisstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// layout is the version of what this package writes. It is raised when a
// version can't read what the one before wrote.
const layout = "2"

// ClaimLayout notes which layout the deployment's records have, if none did
// before. It returns an error if theirs is another than this version's: its
// scripts would take one field for another. Errors: ReasonStateUnavailable.
func (s *Store) ClaimLayout(ctx context.Context) error {
	theirs, err := s.client.Get(ctx, s.keys.layout).Result()
	if errors.Is(err, redis.Nil) {
		// Of two that start at once with different versions the second finds out
		// at its next start.
		theirs, err = layout, s.client.SetNX(ctx, s.keys.layout, layout, 0).Err()
	}

	if err != nil {
		return failed("claim layout", err)
	}

	if theirs != layout {
		return fmt.Errorf("redis: records of layout %q, this version has %q: run the version that wrote them, or use another tag", theirs, layout)
	}

	return nil
}
