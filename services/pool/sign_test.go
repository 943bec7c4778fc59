package pool

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// TestWritable: no name leaves the attempt's folder or hides in it.
func TestWritable(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"720p.mp4": true, "720p/00000.m4s": true, "a/b/c/d.mp4": true, "audio/init.mp4": true,
		"": false, ".": false, "..": false, "../x.mp4": false, "720p/../../x.mp4": false, "/720p.mp4": false,
		"720p//x.mp4": false, "720p/": false, ".hidden": false, "720p/.x": false, "-x.mp4": false, `720p\x`: false,
		"a/b/c/d/e.mp4": false, "x.mp4?a=b": false, "x y.mp4": false, "x\x00.mp4": false, "x.mp4\n": false, "é.mp4": false,
		strings.Repeat("a", 200): true, strings.Repeat("a", 201): false,
	} {
		require.Equal(t, want, writable(media.EncodedObject{Name: name, SizeBytes: 1, ContentType: "video/mp4"}), "%q", name)
	}
}
