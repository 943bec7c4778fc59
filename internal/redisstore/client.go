package redisstore

import (
	"crypto/tls"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// clusterMark in a URL's scheme says that it names nodes of a cluster.
const clusterMark = "+cluster://"

// newClient returns a client that isn't connected yet. It sends nothing beyond
// what is asked for: commands cost money on hosted Redis.
func newClient(cfg Config) (redis.UniversalClient, error) {
	if secure, rest, ok := strings.Cut(cfg.URL, clusterMark); ok {
		return newClusterClient(cfg, secure+"://"+rest)
	}

	opts, err := redis.ParseURL(cfg.URL)
	if err != nil {
		return nil, badURL()
	}

	opts.TLSConfig, err = tlsFor(cfg, opts.TLSConfig)
	if err != nil {
		return nil, err
	}

	opts.DisableIdentity = true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	opts.Protocol = 2
	opts.ContextTimeoutEnabled = true
	opts.MinIdleConns = 0
	// A call is repeated as a whole, so each repeat dials but once.
	opts.DialerRetries = 1

	if cfg.PoolSize > 0 {
		opts.PoolSize = cfg.PoolSize
	}

	return redis.NewClient(opts), nil
}

// newClusterClient returns a client of a cluster. All keys have one hash tag,
// so one node at a time has all of them; the client finds it, and finds it
// again when the slot moves or the node fails.
func newClusterClient(cfg Config, url string) (redis.UniversalClient, error) {
	opts, err := redis.ParseClusterURL(url)
	if err != nil {
		return nil, badURL()
	}

	opts.TLSConfig, err = tlsFor(cfg, opts.TLSConfig)
	if err != nil {
		return nil, err
	}

	opts.DisableIdentity = true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	opts.DisableRoutingPolicies = true
	opts.Protocol = 2
	opts.ContextTimeoutEnabled = true
	opts.MinIdleConns = 0
	opts.DialerRetries = 1
	// What was just written is read: replicas are behind.
	opts.ReadOnly, opts.RouteByLatency, opts.RouteRandomly = false, false, false

	if cfg.PoolSize > 0 {
		opts.PoolSize = cfg.PoolSize
	}

	return redis.NewClusterClient(opts), nil
}

// badURL doesn't quote the URL, as the parser's error can: it may have a password.
func badURL() error {
	return errors.New("redis URL: want redis://, rediss://, unix://, redis+cluster:// or rediss+cluster://")
}

// tlsFor returns the TLS settings to use instead of those of the URL, which has some if it is a secure one.
func tlsFor(cfg Config, ofURL *tls.Config) (*tls.Config, error) {
	if cfg.TLS == nil {
		return ofURL, nil
	}

	if ofURL == nil {
		return nil, errors.New("redis URL: TLS settings need rediss:// or rediss+cluster://")
	}

	return cfg.TLS, nil
}
