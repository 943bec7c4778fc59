package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// madeStream is an HLS output in a folder, and how long it is.
type madeStream struct {
	dir    string
	length time.Duration
}

// played is what play-folders.ts prints of a stream.
type played struct {
	End             string       `json:"end"`
	Complaints      []string     `json:"complaints"`
	Taken           []int        `json:"taken"`
	Segments        int          `json:"segments"`
	Buffered        [][2]float64 `json:"buffered"`
	PositionSeconds float64      `json:"positionSeconds"`
	DurationSeconds float64      `json:"durationSeconds"`
}

// play says that a browser plays each stream of a class to its end by hls.js:
// all of its segments, each in its turn, without a hole or a complaint. Of the
// corrupt one the sound is copied with its damage, which Chromium refuses.
func (m *matrixRow) play(t *testing.T) {
	t.Helper()
	if len(m.streams) == 0 || m.id == mediatest.Corrupt {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
	defer cancel()
	args := []string{"../sdk/ts/dist/test/play-folders.js"}
	for _, s := range m.streams {
		args = append(args, s.dir)
	}
	cmd := exec.CommandContext(ctx, "node", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	require.Len(t, lines, len(m.streams))
	slack := 1 / cmp.Or(m.fps, 1/audioFrame.Seconds()/2)
	for i, line := range lines {
		var p played
		require.NoError(t, json.Unmarshal(line, &p), "%s", line)
		require.Equal(t, "ended", p.End, "%s", line)
		require.Empty(t, p.Complaints, "%s", line)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(p.Taken))), p.Segments, "%s", line)
		require.Len(t, p.Buffered, 1, "a hole: %s", line)
		length := m.streams[i].length.Seconds()
		require.InDelta(t, length, p.Buffered[0][1], slack, "%s", line)
		require.InDelta(t, length, p.PositionSeconds, slack, "%s", line)
		require.InDelta(t, length, p.DurationSeconds, slack, "%s", line)
	}
}
