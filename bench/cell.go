package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tcoder-dev/tcoder/internal/local"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
)

// The buckets of `tcoder serve`.
const (
	bucketIn  = "tcoder-in"
	bucketOut = "tcoder-out"
)

// cell is a deployment: control planes, their Redis and their S3 server, each
// a process of its own.
type cell struct {
	redis   *redisServer
	s3      *local.S3
	buckets *child
	planes  []*plane
}

// plane is a control plane.
type plane struct {
	*child

	url string
	tap *tap // counts what it says to Redis
}

// startCell starts a cell of so many replicas with the settings of the
// product and flags besides. Each replica reaches Redis directly or, counted,
// through a tap.
func startCell(ctx context.Context, s setting, replicas int, counted bool, flags ...string) (_ *cell, err error) {
	c := &cell{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	if c.redis, err = startRedis(ctx, s, everySecond); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.work, "cell-")
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}
	c.buckets, err = runChild(ctx, filepath.Join(dir, "s3.log"), func(log *slog.Logger) (*local.Process, error) {
		c.s3, err = local.NewS3(local.S3Config{Dir: filepath.Join(dir, "s3"), Command: []string{s.binary, "s3d"}, Log: log})
		if err != nil {
			return nil, err
		}

		return c.s3.Process, nil
	})
	if err != nil {
		return nil, err
	}
	for i := range replicas {
		p, err := c.startPlane(ctx, s, filepath.Join(dir, fmt.Sprintf("serve-%d.log", i)), counted, flags)
		if err != nil {
			return nil, err
		}
		c.planes = append(c.planes, p)
	}

	return c, nil
}

func (c *cell) startPlane(ctx context.Context, s setting, log string, counted bool, flags []string) (_ *plane, err error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	p := &plane{url: "http://" + address}
	redisURL := c.redis.url()
	if counted {
		if p.tap, err = startCounter(ctx, c.redis.address); err != nil {
			return nil, err
		}
		redisURL = p.tap.url()
	}
	keys := c.s3.Credentials()
	p.child, err = startChild(ctx, log, local.ProcessConfig{
		Name: "serve",
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			cmd := exec.CommandContext(ctx, s.binary, append([]string{
				"serve", "--listen", address, "--redis-url", redisURL, "--s3-endpoint", c.s3.Endpoint(),
			}, flags...)...)
			cmd.Env = append(os.Environ(),
				"TCODER_S3_ACCESS_KEY_ID="+keys.AccessKeyID, "TCODER_S3_SECRET_ACCESS_KEY="+keys.SecretAccessKey)

			return cmd, nil
		},
		Check: func(ctx context.Context) error { return serves(ctx, p.url) },
	})
	if err != nil && p.tap != nil {
		err = errors.Join(err, p.tap.close())
	}

	return p, err
}

// bucket opens one of the cell's buckets.
func (c *cell) bucket(name string) (*s3.Store, error) {
	keys := c.s3.Credentials()

	return s3.New(s3.Config{
		Endpoint: c.s3.Endpoint(), Region: "auto", PathStyle: true, Bucket: name,
		AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey,
	})
}

// startCount counts commands anew, from the moment that it returns.
func (c *cell) startCount() time.Time {
	for _, p := range c.planes {
		p.tap.take()
	}

	return time.Now()
}

// commandsPerHour is what the busiest replica said to Redis since then, scaled.
func (c *cell) commandsPerHour(since time.Time) float64 {
	most, passed := 0, time.Since(since).Seconds()
	for n, p := range c.planes {
		counts := p.tap.take()
		tell(fmt.Sprintf("commands of idle replica %d in %.0f s", n, passed), counts)
		most = max(most, total(counts))
	}

	return float64(most) * time.Hour.Seconds() / passed
}

// stop ends everything in order, and returns what went wrong with any of it.
func (c *cell) stop() error {
	var errs []error
	for _, p := range c.planes {
		errs = append(errs, p.stop())
		if p.tap != nil {
			errs = append(errs, p.tap.close())
		}
	}
	if c.buckets != nil {
		errs = append(errs, c.buckets.stop())
	}
	if c.redis != nil {
		errs = append(errs, c.redis.stop())
	}

	return errors.Join(errs...)
}
