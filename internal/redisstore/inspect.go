package redisstore

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
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
	// Encrypted says that the connection is.
	Encrypted bool
	// Cluster says that the server is a node of a cluster, ClusterState is ok
	// if that serves, and AsCluster says that it is asked as one, by the URL.
	Cluster      bool
	ClusterState string
	AsCluster    bool
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

	info := ServerInfo{Time: now, Version: property(text, "redis_version"), Cluster: property(text, "redis_mode") == "cluster"}

	switch client := s.client.(type) {
	case *redis.Client:
		info.Encrypted = client.Options().TLSConfig != nil
	case *redis.ClusterClient:
		info.Encrypted, info.AsCluster = client.Options().TLSConfig != nil, true
	}

	if info.Cluster {
		state, err := s.client.ClusterInfo(ctx).Result()
		if err != nil {
			return ServerInfo{}, failed("cluster info", err)
		}

		info.ClusterState = property(state, "cluster_state")
	}

	// Hosted servers refuse this one.
	config, err := s.client.ConfigGet(ctx, "*").Result()
	if err == nil {
		info.AppendOnly, info.MaxMemoryPolicy = config["appendonly"], config["maxmemory-policy"]
	}

	return info, nil
}

// property is a value of a text of "name:value" lines, empty if it isn't there.
func property(text, name string) string {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), name+":"); found {
			return value
		}
	}

	return ""
}
