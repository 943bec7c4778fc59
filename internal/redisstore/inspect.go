package redisstore

import (
	"context"
	"strings"
	"time"
)

// ServerInfo is what an operator has to know of a Redis server. What a hosted
// one doesn't tell is empty.
type ServerInfo struct {
	Version string
	// AppendOnly is yes if writes survive a restart.
	AppendOnly string
	// MaxMemoryPolicy has to be noeviction: any other may drop jobs.
	MaxMemoryPolicy string
	// Time is the server's clock.
	Time time.Time
}

// Inspect asks the server about itself. Errors: ReasonStateUnavailable.
func (s *Store) Inspect(ctx context.Context) (ServerInfo, error) {
	text, err := s.client.Info(ctx, "server").Result()
	if err != nil {
		return ServerInfo{}, failed("info", err)
	}

	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return ServerInfo{}, failed("time", err)
	}

	info := ServerInfo{Time: now}

	for line := range strings.Lines(text) {
		if version, found := strings.CutPrefix(strings.TrimSpace(line), "redis_version:"); found {
			info.Version = version
		}
	}

	// Hosted servers refuse this one.
	config, err := s.client.ConfigGet(ctx, "*").Result()
	if err == nil {
		info.AppendOnly, info.MaxMemoryPolicy = config["appendonly"], config["maxmemory-policy"]
	}

	return info, nil
}
