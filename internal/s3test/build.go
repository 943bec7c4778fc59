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
	"runtime"
	"syscall"
)

const dirPerm = 0o700

// Build makes the server's program and returns its path. Only the first call
// after a change takes time. Test binaries that run at once take turns.
func Build(ctx context.Context) (string, error) {
	_, source, _, ok := runtime.Caller(0)
	if !ok {
		return "", errors.New("build s3d: source folder unknown")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir() // no home folder, as in some containers
	}
	// Two checkouts on one computer must not replace each other's program.
	sum := sha256.Sum256([]byte(source))
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
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build s3d: %w\n%s", err, output)
	}
	return binary, nil
}
