package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Program returns the path of the tcoder under test: TCODER_BIN, or one that
// is built into dir.
func Program(dir string) (string, error) {
	if path := os.Getenv("TCODER_BIN"); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "tcoder")
	build := exec.CommandContext(context.Background(), "go", "build", "-o", path, "github.com/tcoder-dev/tcoder/cmd/tcoder")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}

	return path, nil
}
