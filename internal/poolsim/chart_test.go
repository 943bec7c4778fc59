package poolsim_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/poolsim"
)

// TestSVG: a chart is well-formed, says what it shows, and stays within its frame.
func TestSVG(t *testing.T) {
	t.Parallel()
	o := poolsim.Outcome{
		About: "1 < 2 jobs", Limit: 3, Wait: poolsim.Spread{P50: time.Second, P95: 90 * time.Second}, Used: 2 * time.Hour,
		Points: []poolsim.Point{
			{Waiting: 7, Coming: 2},
			{At: 10 * time.Second, Waiting: 5, Busy: 2, Stopped: 1},
			{At: time.Minute, Idle: 2, Stopped: 1},
			{At: 2 * time.Minute, Stopped: 3},
			{At: time.Hour, Stopped: 3},
		},
	}
	svg := string(o.SVG())
	for decoder := xml.NewDecoder(strings.NewReader(svg)); ; {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	for _, text := range []string{
		"1 &lt; 2 jobs", "tasks that wait", "machines", "busy", "idle", "limit", "at most 1.0 s, 95 % at most 1 min 30 s", "2 h used", ">2 min</text>",
	} {
		require.Contains(t, svg, text)
	}
	require.NotContains(t, svg, "NaN")
	require.NotContains(t, svg, "3 min", "it ends with the last machine")
	require.NotEmpty(t, poolsim.Outcome{}.SVG())
}
