package server

import (
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
)

func inputFor(t *testing.T, args ...string) (inputSettings, error) {
	t.Helper()
	var s inputSettings
	cmd := &cobra.Command{}
	s.register(cmd)
	require.NoError(t, cmd.ParseFlags(args))

	return s, s.read()
}

// A project's own limits take the place of those of all, one by one.
func TestProjectLimits(t *testing.T) {
	t.Parallel()
	s, err := inputFor(t, "--max-input-fps", "120", "--project-limit", "film:max-input-duration=48h,film:max-upload-bytes=7",
		"--project-limit", "clips:max-input-pixels=100", "--project-limit", "clips:max-input-fps=30.5,clips:max-input-streams=2")
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"film": 7, "clips": 100 << 30}, s.sizes())
	require.Equal(t, map[string]media.Limits{
		"film":  {MaxPixels: 8192 * 4320, MaxDuration: 48 * time.Hour, MaxFPS: 120, MaxStreams: 64},
		"clips": {MaxPixels: 100, MaxDuration: 24 * time.Hour, MaxFPS: 30.5, MaxStreams: 2},
	}, s.inputs())

	for _, wrong := range []string{
		"film", "film:max-input-fps", ":max-input-fps=1", "film:pixels=1", "film:max-input-fps=0", "film:max-input-fps=NaN",
		"film:max-input-duration=1", "film:max-upload-bytes=-1", "film:max-input-streams=99999999999",
	} {
		_, err := inputFor(t, "--project-limit", wrong)
		require.ErrorContains(t, err, "project-limit", wrong)
	}
}
