package redisstore

import (
	"context"
	"fmt"
)

// layout is the version of what this package writes. It is raised when a
// version can't read what the one before wrote.
const layout = "1"

// ClaimLayout notes which layout the deployment's records have, if none did
// before. It returns an error if theirs is another than this version's: its
// scripts would take one field for another. Errors: ReasonStateUnavailable.
func (s *Store) ClaimLayout(ctx context.Context) error {
	claimed, err := s.client.SetNX(ctx, s.keys.layout, layout, 0).Result()
	if err != nil {
		return failed("claim layout", err)
	}

	if claimed {
		return nil
	}

	theirs, err := s.client.Get(ctx, s.keys.layout).Result()
	if err != nil {
		return failed("read layout", err)
	}

	if theirs != layout {
		return fmt.Errorf("redis: records of layout %q, this version has %q: run the version that wrote them, or use another tag", theirs, layout)
	}

	return nil
}
