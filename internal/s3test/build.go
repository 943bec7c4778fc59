package s3test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

const dirPerm = 0o700

// Build makes the server's program and returns its path. Only the first call
// after a change takes time. Test binaries that run at once take turns.
func Build(ctx context.Context) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("build s3d: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // no home folder, as in some containers
	}
	// Two checkouts on one computer must not replace each other's program.
	sum := sha256.Sum256([]byte(root))
	dir := filepath.Join(cache, "tcoder-test", hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return "", fmt.Errorf("build s3d: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("build s3d: %w", err)
	}
	defer lock.Close() //nolint:errcheck // nothing was written
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("build s3d: lock: %w", err)
	}
	binary := filepath.Join(dir, "s3d")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/tcoder-dev/tcoder/internal/s3test/cmd/s3d")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the same program from tests with and without -race
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build s3d: %w\n%s", err, output)
	}
	return binary, nil
}

// moduleRoot is the folder with go.mod at or above the working directory,
// where go test puts the tests of a package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("working directory: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod at or above the working directory")
		}
		dir = parent
	}
}
