package crash_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/tcoder-dev/tcoder/e2e/daemon"
	"github.com/tcoder-dev/tcoder/internal/redistest"
	"github.com/tcoder-dev/tcoder/internal/s3test"
)

// program is the tcoder under test, an absolute path.
var program string //nolint:gochecknoglobals // set once by TestMain

// TestMain runs the tests, or is a worker of one: see worker_test.go.
func TestMain(m *testing.M) {
	var code int
	var err error
	if config := os.Getenv(fakeWorkerEnv); config != "" {
		err = runFakeWorker(config)
	} else {
		code, err = runTests(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "tcoder-crash-")
	if err != nil {
		return 1, fmt.Errorf("scratch folder: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the temporary folder harms nobody
	if program, err = daemon.Program(dir); err != nil {
		return 1, err
	}

	return s3test.Wrap(redistest.Wrap(m)).Run(), nil
}
