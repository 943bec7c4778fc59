package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// The README's API examples guarantee to work as they stand: they are what
// this test runs, against another port.
func TestReadmeExamples(t *testing.T) {
	t.Parallel()
	s := up(t)
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	marked := regexp.MustCompile("(?s)<!-- e2e: (\\w+) -->\n```sh\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.Len(t, marked, 2)
	film, err := os.ReadFile(mediatest.Clip(t, mediatest.Film))
	require.NoError(t, err)
	for _, example := range marked {
		t.Run(example[1], func(t *testing.T) {
			t.Parallel()
			if example[1] == "grpcurl" {
				requireGrpcurl(t)
			}
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "clip.mp4"), film, 0o600))
			script := strings.ReplaceAll(example[2], "127.0.0.1:8080", s.address)
			shell := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
			shell.Dir = dir
			out, err := shell.CombinedOutput()
			require.NoError(t, err, "%s", out)
			if example[1] == "grpcurl" {
				require.Contains(t, string(out), `"jobId"`)

				return
			}
			text, err := os.ReadFile(filepath.Join(dir, "job.json"))
			require.NoError(t, err)
			require.Contains(t, string(text), `"JOB_STATE_`)
			complete, err := os.ReadFile(filepath.Join(dir, "complete.json"))
			require.NoError(t, err)
			id := regexp.MustCompile(`"job":\{"id":"(\w+)"`).FindSubmatch(complete)
			require.NotNil(t, id, "%s", complete)
			job, err := client(t, s.url).Wait(t.Context(), string(id[1]))
			require.NoError(t, err)
			require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, job.GetState())
		})
	}
}

// requireGrpcurl says how to get it; make test builds it and puts it on PATH.
func requireGrpcurl(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("grpcurl")
	require.NoError(t, err, "run this test by make test, which builds grpcurl")
}
