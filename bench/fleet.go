package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/internal/flytest"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
)

const (
	fleetReplicas = 2
	fleetToken    = "bench"
	// startRounds are empty pools that a job meets: the worst counts.
	startRounds = 5
	startWithin = 10 * time.Second
	// poolIdleFor is a multiple of everything that comes by the clock but the
	// pool's own look, which comes every 6 minutes and falls into it once or twice.
	poolIdleFor = 10 * time.Minute
)

// cloudCell is a cell whose pool is machines of Fly, faked, without processes.
type cloudCell struct {
	*cell

	cloud   *flytest.Server
	server  *http.Server
	created chan time.Time // when a machine was asked for
}

func startCloudCell(ctx context.Context, s setting, counted bool) (_ *cloudCell, err error) {
	c := &cloudCell{
		cloud: flytest.New(flytest.Config{App: "bench", Token: fleetToken}), created: make(chan time.Time, 1),
	}
	c.server = &http.Server{ReadHeaderTimeout: startWithin, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/machines") {
			select {
			case c.created <- time.Now():
			default:
			}
		}
		c.cloud.ServeHTTP(w, r)
	})}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cloud: %w", err)
	}
	go func() { _ = c.server.Serve(listener) }() // it ends when it is closed
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	dir, err := os.MkdirTemp(s.work, "cloud-")
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(fleetToken), 0o600); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	c.cell, err = startCell(ctx, s, fleetReplicas, counted, "--pool", "fly", "--pool-limit", "20", "--fly-app", "bench",
		"--fly-token-file", token, "--fly-image", "worker@sha256:1", "--fly-api-url", "http://"+listener.Addr().String(),
		"--fly-server-url", "http://bench.internal:8080")

	return c, err
}

func (c *cloudCell) stop() error {
	var err error
	if c.cell != nil {
		err = c.cell.stop()
	}
	err = errors.Join(err, c.server.Close())
	c.cloud.Close()

	return err
}

// poolStart measures how soon a machine is asked for when a job is ready.
func poolStart(ctx context.Context, s setting) ([]Result, error) {
	var ms []float64
	for range startRounds {
		took, err := startOnce(ctx, s)
		if err != nil {
			return nil, err
		}
		ms = append(ms, milliseconds(took))
	}

	return []Result{
		plain("start/median", spreadOf(ms).p50, "ms", ""),
		atMost(50, plain("start/worst", slices.Max(ms), "ms",
			fmt.Sprintf("from before the job is stored until the request to create a machine comes in; the worst of %d empty pools", startRounds))),
	}, nil
}

func startOnce(ctx context.Context, s setting) (_ time.Duration, err error) {
	c, err := startCloudCell(ctx, s, false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	store, err := redisstore.New(redisstore.Config{URL: c.redis.url()})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	err = until(ctx, startWithin, "the pool's first look", func() (bool, error) { return len(c.cloud.Calls(flytest.List)) > 0, nil })
	if err != nil {
		return 0, err
	}
	wait(ctx, time.Second) // whatever follows the start is over
	if len(c.created) > 0 {
		return 0, errors.New("invalid: a machine was asked for without a job")
	}
	began := time.Now()
	if _, err := submitProbe(ctx, store); err != nil {
		return 0, err
	}
	select {
	case at := <-c.created:
		return at.Sub(began), nil
	case <-time.After(startWithin):
		return 0, errors.New("invalid: no machine was asked for")
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// poolIdle counts what a pool says to Redis that has nothing to do and no machines.
func poolIdle(ctx context.Context, s setting) (_ []Result, err error) {
	c, err := startCloudCell(ctx, s, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	wait(ctx, idleSettle)
	since := c.startCount()
	wait(ctx, poolIdleFor)

	return []Result{
		atMost(0, plain("idle/machines", float64(c.cloud.Counts().Existing), "machines", "")),
		atMost(300, plain("idle/commands", c.commandsPerHour(since), "commands",
			fmt.Sprintf("in an hour, on the wire, of the busier of two replicas with an empty pool on Fly; %s, scaled", poolIdleFor))),
	}, nil
}
