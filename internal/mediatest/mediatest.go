// Package mediatest gives tests real media files, and looks into the files that the product makes.
//
// All clips come from one committed cut of a film (testdata/sintel.mp4) or from FFmpeg's own generators. A clip is made
// on first use and kept in the folder named by TCODER_TEST_MEDIA, or in the user's cache folder: never in the
// repository. A file lock lets test processes share that folder, a rename makes a finished clip appear whole, and the
// clip's name carries a digest of its recipe, so a changed recipe never meets an old file. Clips are read-only: copy one
// before changing it.
package mediatest

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

//go:embed testdata/sintel.mp4
var sintel []byte

// Clip returns the path of a clip, making it and the clips it comes from if they aren't in the cache yet.
func Clip(t testing.TB, id ID) string {
	t.Helper()

	made, known := recipes()[id]
	require.True(t, known, "no clip is called %q", id)

	path, err := clip(t.Context(), cacheDir(t), string(id), made)
	require.NoError(t, err)

	return path
}

// Zoom1080 returns a clip of the given length, 1920x1080 at 24 frames per second with stereo sound: the film enlarged
// and looped, for tests that need a source with room for a full ladder.
func Zoom1080(t testing.TB, length time.Duration) string {
	t.Helper()

	path, err := clip(t.Context(), cacheDir(t), "zoom1080-"+length.String(), recipe{
		ext:  ".mp4",
		from: []ID{Film},
		args: split("-stream_loop -1 -i {0} -t " + strconv.FormatFloat(length.Seconds(), 'f', -1, 64) +
			" -vf setpts=N/24/TB,crop=1120:630,scale=1920:1080:flags=bilinear,setsar=1 -af asetpts=N/SR/TB -r 24" +
			" -c:v libx264 -preset superfast -crf 23 -pix_fmt yuv420p -c:a aac -b:a 128k -movflags +faststart"),
	})
	require.NoError(t, err)

	return path
}

func cacheDir(t testing.TB) string {
	t.Helper()

	dir := os.Getenv("TCODER_TEST_MEDIA")
	if dir == "" {
		cache, err := os.UserCacheDir()
		require.NoError(t, err)

		dir = filepath.Join(cache, "tcoder-media")
	}

	require.NoError(t, os.MkdirAll(dir, 0o755))

	return dir
}

// clip returns the path of the clip in the cache folder after making it, once for all processes.
func clip(ctx context.Context, dir, name string, made recipe) (string, error) {
	inputs := make([]string, 0, len(made.from))

	for _, id := range made.from {
		from, isClip := recipes()[id]
		if !isClip {
			from = ingredients()[id]
		}

		input, err := clip(ctx, dir, string(id), from)
		if err != nil {
			return "", err
		}

		inputs = append(inputs, input)
	}

	path := filepath.Join(dir, name+"-"+made.digest(inputs)+made.ext)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}

	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()

	if _, err := os.Stat(path); err == nil { // another process made it while this one waited
		return path, nil
	}

	if err := makeClip(ctx, path, made, inputs); err != nil {
		return "", fmt.Errorf("make test clip %s: %w", name, err)
	}

	return path, nil
}

func makeClip(ctx context.Context, path string, made recipe, inputs []string) error {
	scratch, err := os.MkdirTemp(filepath.Dir(path), "making-")
	if err != nil {
		return fmt.Errorf("scratch folder: %w", err)
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // a leftover folder in a cache harms nobody

	out := filepath.Join(scratch, "clip"+made.ext)

	if made.bytes != nil {
		content, err := made.bytes(inputs)
		if err != nil {
			return err
		}

		if err := os.WriteFile(out, content, 0o644); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	} else if err := ffmpeg(ctx, append(made.command(inputs), out)...); err != nil {
		return err
	}

	if err := os.Rename(out, path); err != nil {
		return fmt.Errorf("move into the cache: %w", err)
	}

	return nil
}

// lock waits for the file lock at path and returns what releases it.
func lock(path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}

	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}

	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}

	return func() { _ = file.Close() }, nil // closing releases the lock
}

func ffmpeg(ctx context.Context, args ...string) error {
	args = append([]string{"-hide_banner", "-nostdin", "-v", "error", "-y"}, args...)
	if output, err := exec.CommandContext(ctx, "ffmpeg", args...).CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%w: run make deps", err)
		}

		return fmt.Errorf("ffmpeg %s: %w\n%s", strings.Join(args, " "), err, output)
	}

	return nil
}

// digest names a recipe by its content and by its inputs, whose names carry their own digests.
func (r recipe) digest(inputs []string) string {
	sum := sha256.New()
	for _, input := range inputs {
		fmt.Fprintln(sum, filepath.Base(input))
	}

	fmt.Fprintln(sum, strings.Join(r.args, "\x00"), r.version)

	return fmt.Sprintf("%x", sum.Sum(nil)[:4])
}

// command returns the arguments with {0}, {1} ... replaced by the inputs.
func (r recipe) command(inputs []string) []string {
	args := make([]string, 0, len(r.args)+1)

	for _, arg := range r.args {
		for i, input := range inputs {
			arg = strings.ReplaceAll(arg, "{"+strconv.Itoa(i)+"}", input)
		}

		args = append(args, arg)
	}

	return args
}
