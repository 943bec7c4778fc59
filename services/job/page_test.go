package job

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// A token gives back the position it was made of, for the same list only.
func TestPageToken(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		position := rapid.StringN(1, 40, 100).Draw(t, "position")
		filter := rapid.SliceOfN(rapid.StringMatching(`[a-z]{0,5}`), 1, 4).Draw(t, "filter")
		token := pageToken(position, filter...)
		got, err := pagePosition(token, filter...)
		require.NoError(t, err)
		require.Equal(t, position, got)
		require.Regexp(t, `^[A-Za-z0-9_-]+$`, token)

		_, err = pagePosition(token, append(slices.Clip(filter), "more")...)
		require.Equal(t, pipeline.ReasonPageTokenInvalid, pipeline.ReasonOf(err))
	})
	first, err := pagePosition("", "jobs")
	require.NoError(t, err)
	require.Empty(t, first)
}

// A token that was changed in any bit, cut, or made up is refused.
func TestPageTokenTampered(t *testing.T) {
	t.Parallel()
	token := pageToken("01JD0000000000000000000000", "jobs", "default")
	raw, err := base64.RawURLEncoding.DecodeString(token)
	require.NoError(t, err)
	for i := range len(raw) * 8 {
		changed := append([]byte(nil), raw...)
		changed[i/8] ^= 1 << (i % 8)
		_, err := pagePosition(base64.RawURLEncoding.EncodeToString(changed), "jobs", "default")
		require.Equal(t, pipeline.ReasonPageTokenInvalid, pipeline.ReasonOf(err), "bit %d", i)
	}
	for _, bad := range []string{"x", "AQ", token[:len(token)-1], token + "A", token[1:], "!!!", strings.Repeat("A", 512)} {
		_, err := pagePosition(bad, "jobs", "default")
		require.Equal(t, pipeline.ReasonPageTokenInvalid, pipeline.ReasonOf(err), bad)
	}
}

// Only keys that an object of ours can have reach the store.
func TestObjectKeys(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"a", "in/default/x/source", "my films/köln.mp4", "a.b/..c"} {
		require.NoError(t, checkKey(key), key)
	}
	for _, key := range []string{"", "/a", "a/", "a//b", ".", "a/../b", "a/./b", "a\x00b", "a\nb", strings.Repeat("x", 256)} {
		require.Equal(t, pipeline.ReasonRequestInvalid, pipeline.ReasonOf(checkKey(key)), "%q", key)
	}
}
