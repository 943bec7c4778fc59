package upload

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Whatever its size, a file is cut into parts that R2 takes: equal ones but
// for the last, none below 5 MiB or above a single PUT, at most 10,000, which
// join to the whole file without gap or overlap.
func TestPartPlan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, maxObjectBytes).Draw(t, "size")
		plan := planParts(size, defaultSinglePutBytes)
		if size <= defaultSinglePutBytes {
			require.Equal(t, partPlan{}, plan)

			return
		}
		require.GreaterOrEqual(t, plan.partBytes, objectstore.MinPartSizeBytes)
		require.LessOrEqual(t, plan.partBytes, objectstore.MaxPutSizeBytes)
		require.LessOrEqual(t, plan.count, objectstore.MaxParts)
		require.Greater(t, plan.count, 1)

		u := pipeline.Upload{SizeBytes: size, PartSizeBytes: plan.partBytes, PartCount: plan.count}
		last := plan.count
		offset, bytes := partSpan(u, last)
		require.Equal(t, size, offset+bytes)
		require.Positive(t, bytes)
		n := rapid.IntRange(1, last-1).Draw(t, "part")
		begin, length := partSpan(u, n)
		next, _ := partSpan(u, n+1)
		require.Equal(t, plan.partBytes, length)
		require.Equal(t, next, begin+length)
	})
}

// The sizes where the plan changes its mind.
func TestPartPlanEdges(t *testing.T) {
	t.Parallel()
	require.Equal(t, partPlan{}, planParts(64<<20, 64<<20))
	require.Equal(t, partPlan{16 << 20, 5}, planParts(64<<20+1, 64<<20))
	require.Equal(t, partPlan{16 << 20, 10_000}, planParts(10_000*16<<20, 64<<20))
	require.Equal(t, partPlan{32 << 20, 5_001}, planParts(10_000*16<<20+1, 64<<20))
	require.Equal(t, partPlan{1 << 30, 5_115}, planParts(maxObjectBytes, 64<<20))
}

// A filename is a name, on any system.
func TestFilename(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"a", "clip.mp4", "..mp4", "...", ".hidden", "мой фильм.mov", "\u65e5\u672c.mkv", strings.Repeat("x", 255), "a b c", "%2e%2e", "a:b",
	} {
		require.NoError(t, checkFilename(name), name)
	}
	for _, name := range []string{
		"", ".", "..", "a/b", "/a", "a/", `a\b`, "a\x00b", "a\nb", "a\x7fb", "a\u0085b", strings.Repeat("x", 256),
		strings.Repeat("я", 128), "\xff", "a\xc3",
	} {
		require.Equal(t, pipeline.ReasonFilenameInvalid, pipeline.ReasonOf(checkFilename(name)), "%q", name)
	}
}

// A declared size is at least one byte and at most the limit.
func TestSize(t *testing.T) {
	t.Parallel()
	require.NoError(t, checkSize(1, 10))
	require.NoError(t, checkSize(10, 10))
	require.Equal(t, pipeline.ReasonSizeInvalid, pipeline.ReasonOf(checkSize(0, 10)))
	require.Equal(t, pipeline.ReasonUploadTooLarge, pipeline.ReasonOf(checkSize(11, 10)))
	require.Equal(t, pipeline.ReasonUploadTooLarge, pipeline.ReasonOf(checkSize(1<<64-1, maxObjectBytes)))
}

func threeParts() pipeline.Upload {
	return pipeline.Upload{SizeBytes: 45, PartSizeBytes: 20, PartCount: 3}
}

// claims is a client's part list: `1a` is part 1 with the ETag a.
func claims(parts ...string) []*tcoderv1.UploadedPart {
	var list []*tcoderv1.UploadedPart
	for _, p := range parts {
		list = append(list, &tcoderv1.UploadedPart{PartNumber: uint32(p[0] - '0'), Etag: p[1:]})
	}

	return list
}

// A client's part list names every part once, or nothing.
func TestClaimedParts(t *testing.T) {
	t.Parallel()
	require.NoError(t, checkClaimed(threeParts(), nil))
	require.NoError(t, checkClaimed(threeParts(), claims("3c", "1a", "2b")))
	for name, list := range map[string][]*tcoderv1.UploadedPart{
		"gap":       claims("1a", "3c"),
		"duplicate": claims("1a", "1a", "2b", "3c"),
		"unknown":   claims("1a", "2b", "3c", "4d"),
	} {
		require.Equal(t, pipeline.ReasonPartListInvalid, pipeline.ReasonOf(checkClaimed(threeParts(), list)), name)
	}
	require.Equal(t, pipeline.ReasonPartListInvalid, pipeline.ReasonOf(checkClaimed(pipeline.Upload{SizeBytes: 5}, claims("1a"))))
}

// What the store holds decides: every part with its exact size and, where the
// client claims one, its ETag.
func TestHeldParts(t *testing.T) {
	t.Parallel()
	held := []objectstore.Part{{Number: 1, ETag: "a", SizeBytes: 20}, {Number: 2, ETag: "b", SizeBytes: 20}, {Number: 3, ETag: "c", SizeBytes: 5}}
	require.NoError(t, checkHeld(threeParts(), held, nil))
	require.NoError(t, checkHeld(threeParts(), held, claims("1a", `2"b"`, "3c")))

	err := checkHeld(threeParts(), held[:1], nil)
	require.Equal(t, pipeline.ReasonUploadIncomplete, pipeline.ReasonOf(err))
	var refusal *pipeline.Error
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, map[string]string{"missing_parts": "2,3", "missing_count": "2"}, refusal.Metadata)

	short := []objectstore.Part{held[0], {Number: 2, ETag: "b", SizeBytes: 19}, held[2]}
	require.Equal(t, pipeline.ReasonUploadIncomplete, pipeline.ReasonOf(checkHeld(threeParts(), short, nil)))
	wrong := claims("1a", "2x", "3c")
	require.Equal(t, pipeline.ReasonPartListInvalid, pipeline.ReasonOf(checkHeld(threeParts(), held, wrong)))
}
