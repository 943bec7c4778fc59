package ffmpeg_test

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// traps makes folders of results as an FFmpeg could that was taken over: each
// has something in the place of 720p/00000.m4s that leads to secret, or nowhere.
func traps(t *testing.T, secret string) map[string]string {
	t.Helper()

	const name = "720p/00000.m4s"

	dirs := map[string]string{}

	for trap, set := range map[string]func(dir string) error{
		"a link":           func(dir string) error { return os.Symlink(secret, filepath.Join(dir, name)) },
		"a link up":        func(dir string) error { return os.Symlink("../../"+filepath.Base(secret), filepath.Join(dir, name)) },
		"a link to itself": func(dir string) error { return os.Symlink("00000.m4s", filepath.Join(dir, name)) },
		"a pipe":           func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, name), 0o600) },
		"a folder":         func(dir string) error { return os.Mkdir(filepath.Join(dir, name), 0o700) },
		"a file as a folder": func(dir string) error {
			return replace(dir, func(at string) error { return os.WriteFile(at, nil, 0o600) })
		},
		"a link as a folder": func(dir string) error {
			return replace(dir, func(at string) error { return os.Symlink(filepath.Dir(secret), at) })
		},
	} {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "720p"), 0o700))
		require.NoError(t, set(dir))

		dirs[trap] = dir
	}

	return dirs
}

// replace puts something into the place of the rendition's folder.
func replace(dir string, put func(at string) error) error {
	at := filepath.Join(dir, "720p")
	if err := os.Remove(at); err != nil {
		return err
	}

	return put(at)
}

// secretFile is a file of the worker's, by the name of a segment.
func secretFile(t *testing.T) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), "00000.m4s")
	require.NoError(t, os.WriteFile(path, []byte("secret"), 0o600))

	return path
}

// TestOpenResult guarantees that nothing but a file below the folder is a
// result, that nothing else is opened or waited for, and that nothing elsewhere
// is removed.
func TestOpenResult(t *testing.T) {
	t.Parallel()

	secret := secretFile(t)

	for trap, dir := range traps(t, secret) {
		_, _, err := ffmpeg.OpenResult(dir, "720p/00000.m4s")
		requireInvalid(t, err, trap)

		_ = ffmpeg.RemoveResult(dir, "720p/00000.m4s")
		require.FileExists(t, secret, trap)
	}

	dir := t.TempDir()
	_, _, err := ffmpeg.OpenResult(dir, "720p.mp4")
	requireInvalid(t, err, "nothing")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "720p.mp4"), []byte("12345"), 0o600))

	file, size, err := ffmpeg.OpenResult(dir, "720p.mp4")
	require.NoError(t, err)

	content, err := io.ReadAll(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	require.Equal(t, "12345", string(content))
	require.EqualValues(t, 5, size)

	require.NoError(t, ffmpeg.RemoveResult(dir, "720p.mp4"))
	require.NoFileExists(t, filepath.Join(dir, "720p.mp4"))
}

// TestMeasureTraps guarantees that what leads elsewhere is measured as little as
// it is uploaded, though it were a good file.
func TestMeasureTraps(t *testing.T) {
	t.Parallel()

	const hls, file = tcoderv1.OutputKind_OUTPUT_KIND_HLS, tcoderv1.OutputKind_OUTPUT_KIND_MP4

	dir := t.TempDir()
	require.NoError(t, os.Symlink(mediatest.Clip(t, mediatest.Film), filepath.Join(dir, "link.mp4")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe.mp4"), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "720p"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "720p", "00000.m4s"), nil, 0o600))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "720p", "init.mp4"), 0o600))

	for name, kind := range map[string]tcoderv1.OutputKind{"link": file, "pipe": file, "720p": hls} {
		_, err := ffmpeg.Measure(&tcoderv1.EncodeWork{Output: &tcoderv1.OutputPlan{
			Kind: kind, Video: &tcoderv1.VideoPlan{Renditions: []*tcoderv1.RenditionPlan{{Name: name, Copy: true}}},
		}}, dir)
		requireInvalid(t, err, name)
	}
}

func requireInvalid(t *testing.T, err error, what string) {
	t.Helper()

	var fault *ffmpeg.Fault

	require.ErrorAs(t, err, &fault, what)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, fault.Reason, what)
}
