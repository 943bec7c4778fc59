package upload

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// FuzzPartPlan guarantees that the parts of a file of any size that is taken
// are equal but for the last, as stores demand, no more than they take, and
// together the file.
func FuzzPartPlan(f *testing.F) {
	for _, size := range []int64{1, 64 << 20, 64<<20 + 1, 160_000 << 20, 5 << 40, 100 << 30} {
		f.Add(size, int64(64<<20))
	}

	f.Fuzz(func(t *testing.T, size, singlePut int64) {
		if size < 1 || size > objectstore.MaxPutSizeBytes*objectstore.MaxParts/4 || singlePut < 1 {
			return
		}

		plan := planParts(size, singlePut)
		if size <= singlePut {
			require.Zero(t, plan)

			return
		}

		require.GreaterOrEqual(t, plan.partBytes, objectstore.MinPartSizeBytes)
		require.LessOrEqual(t, plan.partBytes, objectstore.MaxPutSizeBytes)
		require.LessOrEqual(t, plan.count, objectstore.MaxParts)

		u := pipeline.Upload{SizeBytes: size, PartSizeBytes: plan.partBytes, PartCount: plan.count}

		offset, first := partSpan(u, 1)
		require.Zero(t, offset)

		offset, last := partSpan(u, plan.count)
		require.Equal(t, size, offset+last)
		require.Positive(t, last)
		require.LessOrEqual(t, last, max(first, plan.partBytes))
	})
}

// FuzzFilename guarantees that a name which is taken is one file on any system.
func FuzzFilename(f *testing.F) {
	for _, name := range []string{"a.mp4", "", ".", "..", "a/b", `a\b`, "a\x00", "\xff", strings.Repeat("a", 256), "ü é.mov"} {
		f.Add(name)
	}

	f.Fuzz(func(t *testing.T, name string) {
		if err := checkFilename(name); err != nil {
			require.Equal(t, pipeline.ReasonFilenameInvalid, pipeline.ReasonOf(err))

			return
		}

		require.True(t, utf8.ValidString(name))
		require.NotContains(t, []string{"", ".", ".."}, name)
		require.False(t, strings.ContainsAny(name, "/\\\x00\n"))
	})
}
