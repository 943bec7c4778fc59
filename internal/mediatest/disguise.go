package mediatest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// DisguisedPlaylist returns an HLS playlist called clip.mp4 whose only segment is at url. FFmpeg left to itself
// recognises the playlist and fetches the URL, wherever that points: a server that counts its requests shows whether the
// product does.
func DisguisedPlaylist(t testing.TB, url string) string {
	t.Helper()

	return disguised(t, fmt.Sprintf("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n", url))
}

// DisguisedConcat returns an FFmpeg concat script called clip.mp4 that includes its neighbour, a link to the file at path.
// (FFmpeg refuses absolute paths in such a script, but not its neighbours.)
func DisguisedConcat(t testing.TB, path string) string {
	t.Helper()

	neighbour := "neighbour" + filepath.Ext(path)
	script := disguised(t, fmt.Sprintf("ffconcat version 1.0\nfile '%s'\n", neighbour))
	require.NoError(t, os.Symlink(path, filepath.Join(filepath.Dir(script), neighbour)))

	return script
}

func disguised(t testing.TB, content string) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), "clip.mp4")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))

	return path
}
