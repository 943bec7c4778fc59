package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSim: `tcoder sim` prints a table, JSON and charts, refuses what can't be
// simulated, and says the same of the same seed.
func TestSim(t *testing.T) {
	t.Parallel()
	charts := t.TempDir()
	table := newSession(nil)
	require.Zero(t, table.run(t, "sim", "burst", "sparse", "--limit", "10", "--keep-stopped", "10", "--svg", charts))
	require.Contains(t, table.stdout.String(), "OVERHEAD")
	require.Contains(t, table.stdout.String(), "sparse")
	require.FileExists(t, filepath.Join(charts, "burst.svg"))
	svg, err := os.ReadFile(filepath.Join(charts, "sparse.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "</svg>")

	first, again := newSession(nil), newSession(map[string]string{"TCODER_LIMIT": "10"})
	require.Zero(t, first.run(t, "sim", "burst", "--limit", "10", "--json", "--faults"))
	require.Zero(t, again.run(t, "sim", "burst", "--json", "--faults"))
	require.Equal(t, first.stdout.String(), again.stdout.String())
	var outcomes []struct {
		Jobs   int              `json:"jobs"`
		Most   int              `json:"machines_most"`
		Left   int              `json:"machines_running_after"`
		Points []map[string]any `json:"points"`
	}
	require.NoError(t, json.Unmarshal(first.stdout.Bytes(), &outcomes))
	require.Len(t, outcomes, 1)
	require.Equal(t, 200, outcomes[0].Jobs)
	require.Equal(t, 10, outcomes[0].Most)
	require.Zero(t, outcomes[0].Left)
	require.NotEmpty(t, outcomes[0].Points)

	for _, wrong := range [][]string{{"storm"}, {"--limit", "0"}, {"--idle", "-1s"}, {"--stopped", "21"}, {"--warm", "21"}} {
		require.Equal(t, 2, newSession(nil).run(t, append([]string{"sim"}, wrong...)...), wrong)
	}
}
