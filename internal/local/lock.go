package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	lockEvery   = 20 * time.Millisecond
	lockTimeout = 15 * time.Second // more than a child killed with its parent needs to end
)

// ErrInUse says that another server is using the same data.
var ErrInUse = errors.New("data is in use by another server")

// lockFile takes the exclusive lock on path, which the last server on this
// data may still hold for a moment.
func lockFile(ctx context.Context, path string, log *slog.Logger) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), dirPerm); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout,
		fmt.Errorf("%w: %s; is another tcoder running on this folder?", ErrInUse, filepath.Dir(path)))
	defer cancel()
	for first := true; ; first = false {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		case first:
			log.InfoContext(ctx, "waiting for the last server on this data to end", "lock", path)
		}
		if !wait(ctx, lockEvery) {
			return nil, errors.Join(context.Cause(ctx), file.Close())
		}
	}
}
