package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/tcoder-dev/tcoder/internal/local"
)

// child is a server that the harness started.
type child struct {
	*local.Process

	cancel context.CancelFunc
	done   chan struct{}
	err    error // set when done is closed
}

// startChild starts a server and waits until it serves. What it prints goes to a file.
func startChild(ctx context.Context, logPath string, cfg local.ProcessConfig) (*child, error) {
	return runChild(ctx, logPath, func(log *slog.Logger) (*local.Process, error) {
		cfg.NoRestart, cfg.Log = true, log

		return local.NewProcess(cfg), nil
	})
}

// runChild is startChild of a process that is made with the log that it gets.
func runChild(ctx context.Context, logPath string, newProcess func(*slog.Logger) (*local.Process, error)) (*child, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	process, err := newProcess(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	// It is stopped in its turn, after those that use it.
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &child{Process: process, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer log.Close() //nolint:errcheck // a log
		c.err = c.Run(runCtx)
	}()
	select {
	case <-c.Ready():
		return c, nil
	case <-c.done:
		cancel()

		return nil, c.err
	case <-ctx.Done():
		_ = c.stop()

		return nil, context.Cause(ctx)
	}
}

// stop ends the server and returns what went wrong with it.
func (c *child) stop() error {
	c.cancel()
	<-c.done

	return c.err
}

// freeAddress is a port of this machine that nobody uses at the moment.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}

	return address, nil
}
