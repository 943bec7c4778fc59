package ffmpeg_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// canary is a service of this machine that nobody should call.
func canary(t *testing.T) (string, *atomic.Int64) {
	t.Helper()

	var calls atomic.Int64

	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			calls.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)

	return server.URL + "/latest/meta-data", &calls
}

// asUpload probes a source, and encodes it if that succeeds.
func asUpload(t *testing.T, used ffmpeg.Tools, source ffmpeg.Source) error {
	t.Helper()

	bounds := limits()
	bounds.MaxDuration = durationpb.New(24 * time.Hour)

	found, err := ffmpeg.Probe(t.Context(), used, ffmpeg.ProbeRequest{Source: source, Limits: bounds, TimeLimit: mutantLimit})
	if err != nil {
		return err
	}

	_, err = ffmpeg.Encode(t.Context(), used, ffmpeg.EncodeRequest{
		Source: source, Work: plan(t, found, mutantSpec()), Dir: t.TempDir(), TimeLimit: mutantLimit,
	})

	return err
}

// TestHostileReferences guarantees that a source that refers to a file, to a
// service of this machine or to the cloud's metadata, whatever it disguises
// as, is refused as the input's fault or treated as what else is in it: nothing
// it names is opened, and nothing of it is told to the user.
func TestHostileReferences(t *testing.T) {
	t.Parallel()

	address, calls := canary(t)
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("the word is swordfish"), 0o644))

	targets := []string{address, "file://" + secret, "file:///etc/hostname", "http://169.254.169.254/latest/meta-data"}
	// One of each kind for the others: what they refer to is read by the same code.
	kinds := []string{"hls", "concat", "dash", "sdp", "svg", "subtitles, ass", "subtitles, srt", "mov, data by url", "mov, data by alias", "mov, reference movie"}

	for i, target := range targets {
		for name, path := range mediatest.Hostile(t, target) {
			if i > 0 && !slices.Contains(kinds, name) {
				continue
			}

			t.Run(name+" of "+target, func(t *testing.T) {
				t.Parallel()

				source, _ := serve(t, path)
				err := asUpload(t, tools(t), source)

				if strings.HasPrefix(name, "mov, data") && err == nil {
					return // it has data of its own
				}

				found, ok := errors.AsType[*ffmpeg.Fault](err)
				require.True(t, ok, "%v", err)
				require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_INPUT, found.Class, found.Log)
				require.NotContains(t, found.Message+found.Log, "swordfish")
				require.NotContains(t, found.Log, "Connection refused")
			})
		}
	}

	t.Cleanup(func() { require.Zero(t, calls.Load(), "the canary was called") })
}

// TestSandboxAlone guarantees that the sandbox holds where the allow-lists
// don't: FFmpeg with its own defaults follows a playlist to a service of this
// machine, and in the sandbox it can't.
func TestSandboxAlone(t *testing.T) {
	t.Parallel()

	keeper, err := sandbox.New(t.Context(), sandbox.Config{Mode: sandbox.Require})
	require.NoError(t, err)

	for name, test := range map[string]struct {
		keeper *sandbox.Sandbox
		called bool
	}{"limits alone": {sandbox.Limited(), true}, "sandbox": {keeper, false}} {
		address, calls := canary(t)
		source, asked := serve(t, mediatest.DisguisedPlaylist(t, address+"?x=.ts"))
		ctx, cancel := context.WithTimeout(t.Context(), mutantLimit)
		cmd, err := test.keeper.Command(ctx, sandbox.Run{
			Path: tools(t).FFprobe, Args: []string{"-v", "error", source.URL}, Port: portOf(t, source.URL),
		})
		require.NoError(t, err)

		output, err := cmd.CombinedOutput()
		cancel()
		require.Error(t, err, name)
		require.Positive(t, asked.Load(), "%s: %s", name, output)
		require.Equal(t, test.called, calls.Load() > 0, "%s: %s", name, output)
	}
}

// TestBombs guarantees that a small source that asks for much memory, time or
// disk ends soon, by a fault of its own or as what is really in it.
func TestBombs(t *testing.T) {
	t.Parallel()

	bombs := mediatest.Bombs(t)
	bombs["mkv, gap of 10 h"] = ffmpegMakes(t, filepath.Join(t.TempDir(), "gap.mkv"), "-f", "lavfi", "-i", "testsrc2=s=64x64:r=2:d=1",
		"-vf", "setpts=N*36000/TB", "-fps_mode", "vfr", "-c:v", "libx264")
	bombs["matroska with attachments"] = ffmpegMakes(t, filepath.Join(t.TempDir(), "attached.mkv"), "-i", mediatest.Tiny(t, "mp4"), "-c", "copy",
		"-attach", mediatest.Clip(t, mediatest.Text), "-metadata:s:t", "mimetype=application/x-truetype-font", "-metadata:s:t", "filename=../../etc/cron.d/x")

	for name, path := range bombs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			source, _ := serve(t, path)
			used := bounded(t)
			used.MaxFileBytes = 16 << 20

			if ownFault(t, asUpload(t, used, source)) == tcoderv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
				require.NotContains(t, name, "huge")
			}
		})
	}
}
