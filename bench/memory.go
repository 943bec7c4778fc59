package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

const memoryJobs = 50_000

// memory tells what a waiting job of one task takes in Redis, its spec of 300
// bytes included. Nobody retries these creates, so they have no idempotency key.
func memory(ctx context.Context, s setting, _ *quiet) (_ []Result, err error) {
	redis, err := startRedis(ctx, s, never)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	store, closeStore, err := openStore(ctx, redis.url())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	var begun atomic.Int64
	fill := func(n int64) error {
		return atOnce(64, func(i int) error {
			for begun.Add(1) <= n {
				if _, err := (caller{project: projectName(i)}).submit(ctx, store, false); err != nil {
					return err
				}
			}

			return nil
		})
	}
	// The first jobs pay for the scripts and the connections.
	if err := fill(1000); err != nil {
		return nil, err
	}
	before, err := redis.memoryBytes()
	if err != nil {
		return nil, err
	}
	begun.Store(0)
	if err := fill(memoryJobs); err != nil {
		return nil, err
	}
	after, err := redis.memoryBytes()
	if err != nil {
		return nil, err
	}
	stats, err := store.PoolStats(ctx)
	if err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	if stats.ReadyTasks != 1000+memoryJobs {
		return nil, fmt.Errorf("invalid: %d of %d jobs wait", stats.ReadyTasks, 1000+memoryJobs)
	}

	return []Result{atMost(1024, plain("memory/waiting-job", (after-before)/memoryJobs, "bytes", "used_memory of Redis"))}, nil
}
