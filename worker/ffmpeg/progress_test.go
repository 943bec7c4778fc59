package ffmpeg

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const report = `frame=96
fps=48.10
stream_0_0_q=-1.0
bitrate= 812.2kbits/s
total_size=N/A
out_time_us=3979000
out_time_ms=3979000
out_time=00:00:03.979000
dup_frames=0
drop_frames=0
speed=1.99x
progress=continue
frame=97
out_time_us=N/A
speed=N/A
progress=end
`

// TestProgress guarantees that progress is read right, whatever pieces it
// comes in, and that what FFmpeg doesn't know yet changes nothing.
func TestProgress(t *testing.T) {
	t.Parallel()

	for size := 1; size <= len(report); size++ {
		var (
			blocks []Progress
			ends   []bool
		)

		parser := &progressParser{onBlock: func(p Progress, end bool) { blocks, ends = append(blocks, p), append(ends, end) }}

		for rest := report; rest != ""; {
			n := min(size, len(rest))
			written, err := parser.Write([]byte(rest[:n]))
			require.NoError(t, err)
			require.Equal(t, n, written)

			rest = rest[n:]
		}

		first := Progress{OutTime: 3979 * time.Millisecond, Frame: 96, FPS: 48.1, Speed: 1.99}
		second := first
		second.Frame = 97

		require.Equal(t, []Progress{first, second}, blocks)
		require.Equal(t, []bool{false, true}, ends)
	}
}

// FuzzProgress guarantees that no output of a program breaks the parser or
// makes it tell what can't be, and that pieces don't matter.
func FuzzProgress(f *testing.F) {
	f.Add([]byte(report), 7)
	f.Add([]byte("out_time_us=-9223372036854775808\nspeed=NaNx\nfps=inf\nframe=-1\nprogress=\n"), 1)
	f.Add([]byte(strings.Repeat("x", 2*maxProgressLine)+"\nprogress=end\n"), 100)

	f.Fuzz(func(t *testing.T, data []byte, size int) {
		parse := func(size int) (blocks []Progress) {
			parser := &progressParser{onBlock: func(p Progress, _ bool) { blocks = append(blocks, p) }}

			for rest := data; len(rest) > 0; {
				n := min(max(1, size), len(rest))
				written, err := parser.Write(rest[:n])
				require.NoError(t, err)
				require.Equal(t, n, written)
				require.LessOrEqual(t, len(parser.line), maxProgressLine)

				rest = rest[n:]
			}

			return blocks
		}

		blocks := parse(len(data))
		require.Equal(t, blocks, parse(size))

		for _, p := range blocks {
			require.GreaterOrEqual(t, p.OutTime, time.Duration(0))
			require.Less(t, p.OutTime, maxDuration)
			require.GreaterOrEqual(t, p.Frame, int64(0))
			require.True(t, p.FPS >= 0 && p.FPS < 1e9)
			require.True(t, p.Speed >= 0 && p.Speed < 1e9)
		}
	})
}

// FuzzPackets guarantees that no list of packets breaks its reader.
func FuzzPackets(f *testing.F) {
	f.Add([]byte("0|1.000000|0.900000|0.041667|K_\n1|2.0|N/A|N/A|__\n0|N/A|5.0|0.1|_D|\n"))
	f.Add([]byte("4294967296|1|1|1|K\n0|1e300|NaN|-5|\n||||\n"))

	f.Fuzz(func(t *testing.T, data []byte) {
		lines := newPacketLines(&header{})

		written, err := lines.Write(data)
		require.NoError(t, err)
		require.Equal(t, len(data), written)

		for _, end := range lines.found {
			require.Positive(t, end.packets)
			require.LessOrEqual(t, end.at.Abs(), 2*maxDuration)
		}
	})
}
