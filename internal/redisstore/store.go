package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// DefaultTag is the hash tag of a deployment that names none.
const DefaultTag = "tcoder"

// Config says which Redis to use.
type Config struct {
	// URL is redis://, rediss:// or unix://, with user, password and database as
	// go-redis parses them; or redis+cluster:// or rediss+cluster:// for a
	// cluster, of which one node is enough to find the others (more may be
	// given, each as addr=host:port after the question mark).
	URL string
	// Tag is the hash tag of all keys, with or without its braces. Deployments
	// that share a Redis need one each. Empty means DefaultTag.
	Tag string
	// TLS replaces the TLS settings of a rediss:// or rediss+cluster:// URL. Optional.
	TLS *tls.Config
	// PoolSize is the most connections for commands, 0 for go-redis's default.
	// Watching takes one more.
	PoolSize int
}

// Store is a [pipeline.Store] in Redis. It is safe for concurrent use.
type Store struct {
	client  redis.UniversalClient
	keys    keys
	scripts map[string]*redis.Script
	hub     *hub
	batches map[string]*coalescer
	jitter  func() float64 // uniform in [0, 1)

	answered answered
}

var _ pipeline.Store = (*Store)(nil)

// New returns a store. It opens no connection; Ping does. Close it after use.
func New(cfg Config) (*Store, error) {
	scripts, err := loadScripts()
	if err != nil {
		return nil, err
	}

	client, err := newClient(cfg)
	if err != nil {
		return nil, err
	}

	tag := strings.Trim(cfg.Tag, "{}")
	if tag == "" {
		tag = DefaultTag
	}

	// Its log lines say what the returned errors do, but go to standard error.
	redis.SetLogger(silent{})

	k := newKeys(tag)
	s := &Store{
		client:  client,
		keys:    k,
		scripts: scripts,
		hub:     newHub(client, k),
		batches: map[string]*coalescer{},
		jitter:  rand.Float64,
	}

	client.AddHook(&s.answered)

	for _, verb := range coalesced() {
		s.batches[verb] = &coalescer{store: s, verb: verb}
	}

	return s, nil
}

// Ping reports whether Redis answers. Errors: ReasonStateUnavailable.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.client.Ping(ctx).Err(); err != nil {
		return failed("ping", err)
	}

	return nil
}

// Close ends all watches and closes the connections, once what waits to be
// sent was answered. Closing again does nothing.
func (s *Store) Close() error {
	for _, batch := range s.batches {
		batch.close()
	}

	s.hub.close()

	if err := s.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return fmt.Errorf("close redis: %w", err)
	}

	return nil
}

// silent is a logger of go-redis that drops everything.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// AdvanceClock moves the clock of the deployment, for tests.
func (s *Store) AdvanceClock(ctx context.Context, d time.Duration) error {
	if err := s.client.IncrBy(ctx, s.keys.clock, d.Milliseconds()).Err(); err != nil {
		return failed("advance clock", err)
	}

	return nil
}

// StopClock sets the clock of the deployment to a moment, where it stays until
// it is set again, for tests: of two runs of the same calls, the times are the same.
func (s *Store) StopClock(ctx context.Context, at time.Time) error {
	if err := s.client.Set(ctx, s.keys.clock, "="+strconv.FormatInt(at.UnixMilli(), 10), 0).Err(); err != nil {
		return failed("stop clock", err)
	}

	return nil
}

// coalesced are the verbs whose scripts take the requests of many callers at a time.
func coalesced() []string {
	return []string{"create_job", "claim_tasks", "renew_leases", "finish_task", "complete_job", "commit_segments"}
}

// run runs a script and returns its reply.
func (s *Store) run(ctx context.Context, verb string, keys []string, args []any) ([]any, error) {
	script, ok := s.scripts[verb]
	if !ok {
		return nil, internalError(verb, errors.New("no such script"))
	}

	all := slices.Concat(s.keys.common, keys)
	argv := append([]any{s.keys.prefix}, args...)

	reply, err := script.Run(ctx, s.client, all, argv...).Slice()
	if err != nil {
		return nil, failed(verb, err)
	}

	return reply, nil
}

// accepted returns what follows the code of an answer. A code that isn't
// empty is the reason of a refusal.
func accepted(answer []any) ([]any, error) {
	if len(answer) == 0 {
		return nil, internalError("read an answer", errors.New("it is empty"))
	}

	if code := asString(answer[0]); code != "" {
		return nil, refusal(pipeline.Reason(code))
	}

	return answer[1:], nil
}

// call runs a script and returns what follows the code of its answer. The
// requests of a coalesced verb go along with those of other callers.
func (s *Store) call(ctx context.Context, verb string, keys []string, args ...any) ([]any, error) {
	if batch := s.batches[verb]; batch != nil {
		return batch.do(ctx, keys, args...)
	}

	reply, err := s.run(ctx, verb, keys, args)
	if err != nil {
		return nil, err
	}

	return accepted(reply)
}

// callRows is call for scripts that answer with at least n values.
func (s *Store) callRows(ctx context.Context, n int, verb string, keys []string, args ...any) ([]any, error) {
	reply, err := s.call(ctx, verb, keys, args...)
	if err != nil {
		return nil, err
	}

	if len(reply) < n {
		return nil, internalError(verb, fmt.Errorf("%d values, want %d", len(reply), n))
	}

	return reply, nil
}
