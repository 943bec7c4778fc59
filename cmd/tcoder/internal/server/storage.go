package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
)

const (
	accessKeyEnv = "TCODER_S3_ACCESS_KEY_ID"
	secretKeyEnv = "TCODER_S3_SECRET_ACCESS_KEY" //nolint:gosec // a name, not a key
	// The names that AWS tools use are taken where ours are missing.
	awsAccessKeyEnv = "AWS_ACCESS_KEY_ID"
	awsSecretKeyEnv = "AWS_SECRET_ACCESS_KEY" //nolint:gosec // a name, not a key

	// Stores that are being started together with us get this long.
	storageTimeout = 30 * time.Second
	storageRetry   = 500 * time.Millisecond
)

// Storage says where state and bytes are kept.
type Storage struct {
	RedisURL       string
	RedisTag       string
	Endpoint       string
	PublicEndpoint string
	Region         string
	PathStyle      bool
	BucketIn       string
	BucketOut      string
	AccessKeyID    string
	SecretKey      string
}

// Register adds the flags.
func (s *Storage) Register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.RedisURL, "redis-url", "", "Redis, as redis[s]://user:password@host:port, unix:// or redis[s]+cluster:// (up starts its own if there is none)")
	flags.StringVar(&s.RedisTag, "redis-tag", redisstore.DefaultTag, "hash tag of all keys; deployments that share a Redis need one each")
	flags.StringVar(&s.Endpoint, "s3-endpoint", "", "S3-compatible object store, as https://host (up starts its own if there is none)")
	flags.StringVar(&s.PublicEndpoint, "s3-public-endpoint", "", "the same store as clients and workers reach it (empty: as s3-endpoint)")
	flags.StringVar(&s.Region, "s3-region", "auto", "region of the buckets")
	flags.BoolVar(&s.PathStyle, "s3-path-style", true, "put the bucket into the path and not into the host name")
	flags.StringVar(&s.BucketIn, "bucket-in", "tcoder-in", "bucket of sources")
	flags.StringVar(&s.BucketOut, "bucket-out", "tcoder-out", "bucket of outputs")
	cli.AddSecrets(cmd,
		cli.Secret{Env: accessKeyEnv, Usage: "access key of the object store (or " + awsAccessKeyEnv + ")"},
		cli.Secret{Env: secretKeyEnv, Usage: "secret key of the object store (or " + awsSecretKeyEnv + ")"})
}

// ReadSecrets reads the keys of the object store.
func (s *Storage) ReadSecrets(program *cli.Program) {
	s.AccessKeyID, s.SecretKey = program.Env(accessKeyEnv), program.Env(secretKeyEnv)
	if s.AccessKeyID == "" && s.SecretKey == "" {
		s.AccessKeyID, s.SecretKey = program.Env(awsAccessKeyEnv), program.Env(awsSecretKeyEnv)
	}
}

// CheckS3 refuses an external object store without keys.
func (s *Storage) CheckS3() error {
	if s.AccessKeyID == "" || s.SecretKey == "" {
		return cli.Usagef("the keys of the object store are missing: set %s and %s", accessKeyEnv, secretKeyEnv)
	}

	return nil
}

// stores are the open ends of a Storage.
type stores struct {
	redis   *redisstore.Store
	in, out *s3.Store
}

// open connects to nothing yet.
func (s *Storage) open() (*stores, error) {
	redis, err := redisstore.New(redisstore.Config{URL: s.RedisURL, Tag: s.RedisTag})
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	in, err := s.Bucket(s.BucketIn)
	if err != nil {
		return nil, errors.Join(err, redis.Close())
	}
	out, err := s.Bucket(s.BucketOut)
	if err != nil {
		return nil, errors.Join(err, redis.Close())
	}

	return &stores{redis: redis, in: in, out: out}, nil
}

// Bucket returns one of the buckets.
func (s *Storage) Bucket(name string) (*s3.Store, error) {
	bucket, err := s3.New(s3.Config{
		Endpoint:        s.Endpoint,
		PublicEndpoint:  s.PublicEndpoint,
		Region:          s.Region,
		AccessKeyID:     s.AccessKeyID,
		SecretAccessKey: s.SecretKey,
		Bucket:          name,
		PathStyle:       s.PathStyle,
	})
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}

	return bucket, nil
}

// await waits until both stores serve, and makes the buckets if they are
// missing.
func (s *stores) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	var layout error
	waits := []struct {
		what string
		try  func(context.Context) error
	}{
		{"Redis", func(ctx context.Context) error {
			err := s.redis.ClaimLayout(ctx)
			if pipeline.ReasonOf(err) == pipeline.ReasonStateUnavailable {
				return err
			}
			layout = err // waiting doesn't mend it

			return nil
		}},
		{"the input bucket", s.in.EnsureBucket},
		{"the output bucket", s.out.EnsureBucket},
	}
	errs := make([]error, len(waits))
	var all sync.WaitGroup
	for i, wait := range waits {
		all.Go(func() { errs[i] = until(ctx, wait.what, wait.try) })
	}
	all.Wait()
	err := errors.Join(errors.Join(errs...), layout)
	if cause := context.Cause(ctx); errors.Is(cause, cli.ErrInterrupted) {
		return cause
	}

	return err
}

// until tries until it works or ctx ends, and returns the last error then that
// wasn't the end itself.
func until(ctx context.Context, what string, try func(context.Context) error) error {
	tick := time.NewTicker(storageRetry)
	defer tick.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s can't be used: %w", what, last)
		case <-tick.C:
		}
	}
}

// allowPages lets pages of any origin use signed requests: whoever has one may
// use it anyway.
func (s *stores) allowPages(ctx context.Context) error {
	for _, bucket := range []*s3.Store{s.in, s.out} {
		if err := bucket.PutCORS(ctx, []string{"*"}); err != nil {
			return fmt.Errorf("prepare the object store: %w", err)
		}
	}

	return nil
}

func (s *stores) close() error {
	s.in.Close()
	s.out.Close()
	if err := s.redis.Close(); err != nil {
		return fmt.Errorf("close Redis: %w", err)
	}

	return nil
}

// splitList splits a comma-separated value of the environment.
func splitList(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}

	return items
}
