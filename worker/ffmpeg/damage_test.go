package ffmpeg_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// hurt is a clip whose media have stretches of noise, or of zeros, at parts per thousand.
func hurt(t testing.TB, path string, noise bool, stretch int, at ...int) ffmpeg.Source {
	t.Helper()

	content, err := os.ReadFile(path)
	require.NoError(t, err)

	from := max(0, bytes.Index(content, []byte("mdat"))) // the whole of other files

	random := rand.New(rand.NewPCG(1, 2))

	for _, place := range at {
		start := from + (len(content)-from)*place/1000
		for i := start; i < min(start+stretch, len(content)); i++ {
			content[i] = 0
			if noise {
				content[i] = byte(random.Uint32())
			}
		}
	}

	changed := filepath.Join(t.TempDir(), "hurt.mp4")
	require.NoError(t, os.WriteFile(changed, content, 0o600))

	source, _ := serve(t, changed)

	return source
}

// smallFilm is the film in small, with groups of pictures of 2 s.
func smallFilm(t testing.TB) string {
	t.Helper()

	return ffmpegMakes(t, filepath.Join(t.TempDir(), "small.mp4"), "-i", mediatest.Clip(t, mediatest.Film), "-vf", "scale=426:240,setsar=1",
		"-c:v", "libx264", "-preset", "superfast", "-maxrate", "300k", "-bufsize", "300k", "-g", "48", "-sc_threshold", "0", "-pix_fmt", "yuv420p", "-c:a", "copy")
}

// TestDamagedEdges guarantees that a source whose start or end decodes with
// errors isn't copied, and that the plan says why.
func TestDamagedEdges(t *testing.T) {
	t.Parallel()

	film := mediatest.Clip(t, mediatest.Film)
	matroska := ffmpegMakes(t, filepath.Join(t.TempDir(), "film.mkv"), "-i", film, "-c", "copy")

	for name, source := range map[string]ffmpeg.Source{
		"Matroska's end":     hurt(t, matroska, true, 300, 655),
		"noise at the start": hurt(t, film, true, 3000, 20),
		"zeros at the start": hurt(t, film, false, 3000, 20),
		"noise at the end":   hurt(t, film, true, 3000, 940),
		"zeros at the end":   hurt(t, film, false, 3000, 940),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			found := probe(t, source)
			require.True(t, picture(t, found).GetDamaged())

			for _, preset := range []string{"default", "hls"} {
				resolved, err := media.Resolve(media.Spec{Preset: preset, Outputs: nil})
				require.NoError(t, err)

				planned, err := media.MakePlan(domainProbe(found), resolved, media.Limits{}, 1)
				require.NoError(t, err)
				require.False(t, planned.Outputs[0].Video.Renditions[0].Copy)
				require.Contains(t, planned.Notes, "the picture is encoded, not copied: its start or its end is damaged")
			}
		})
	}
}

// hurtPackets is a clip of whose picture, "v", or sound, "a", fill has written
// over the packets from a place per thousand to another.
func hurtPackets(t testing.TB, path, kind string, from, to int, fill func(packet []byte)) ffmpeg.Source {
	t.Helper()

	list, err := exec.CommandContext(t.Context(), tools(t).FFprobe, "-v", "error", "-select_streams", kind,
		"-show_entries", "packet=size,pos", "-of", "csv=p=0", path).Output()
	require.NoError(t, err)

	content, err := os.ReadFile(path)
	require.NoError(t, err)

	packets := strings.Fields(string(list))
	for _, packet := range packets[len(packets)*from/1000 : len(packets)*to/1000] {
		var size, at int

		_, err := fmt.Sscanf(packet, "%d,%d", &size, &at)
		require.NoError(t, err)
		fill(content[at : at+size])
	}

	changed := filepath.Join(t.TempDir(), "hurt.mp4")
	require.NoError(t, os.WriteFile(changed, content, 0o600))

	source, _ := serve(t, changed)

	return source
}

func noise(packet []byte) {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range packet {
		packet[i] = byte(random.Uint32())
	}
}

func zeros(packet []byte) { clear(packet) }

// TestDamagedSound guarantees that a file whose sound is copied, and shows on the
// way that it is damaged, is encoded after all.
func TestDamagedSound(t *testing.T) {
	t.Parallel()

	film := smallFilm(t)
	sound := ffmpegMakes(t, filepath.Join(t.TempDir(), "sound.mp4"), "-i", film, "-vn", "-c", "copy")

	for _, path := range []string{film, sound} {
		for _, fill := range []func([]byte){noise, zeros} {
			work, dir, made := encode(t, hurtPackets(t, path, "a", 500, 520, fill), media.Spec{Preset: "default"})
			require.True(t, work.GetOutput().GetAudio().GetCopy(), "a look at its start doesn't tell")
			require.Len(t, made, 1)
			require.True(t, made[0].GetResult().GetSourceDamaged())
			require.False(t, made[0].GetResult().GetCopied())
			mediatest.DecodeClean(t, playable(dir, made[0]))
		}

		_, _, made := encode(t, hurtPackets(t, path, "a", 0, 0, zeros), media.Spec{Preset: "default"})
		require.True(t, made[0].GetResult().GetCopied())
		require.False(t, made[0].GetResult().GetSourceDamaged())
	}
}

// TestDamagedSegments guarantees that what is copied into segments stays a copy,
// that picture and sound each tell of their own damage, and that no damage of
// sound keeps it from being copied.
func TestDamagedSegments(t *testing.T) {
	t.Parallel()

	film := smallFilm(t)

	for name, test := range map[string]struct {
		source         ffmpeg.Source
		picture, sound bool
	}{
		"none":         {hurtPackets(t, film, "a", 0, 0, zeros), false, false},
		"noise, sound": {hurtPackets(t, film, "a", 500, 520, noise), false, true},
		"zeros, sound": {hurtPackets(t, film, "a", 500, 520, zeros), false, true},
		"most sound":   {hurtPackets(t, film, "a", 100, 1000, zeros), false, true},
		"picture":      {hurtPackets(t, film, "v", 500, 520, noise), true, false},
		// It says that it has a front channel and eleven at the sides.
		"channels": {hurtPackets(t, film, "a", 500, 510, func(packet []byte) {
			clear(packet)
			copy(packet, "\xa0\x98\xd8\x00\x00\x02\x21\x90\xa6\x3a\x12\xa5\x80\x00\x00\x00\x00\x07")
		}), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, _, made := encode(t, test.source, quick("hls", "240p"))
			require.True(t, made[0].GetResult().GetCopied() && made[1].GetResult().GetCopied())
			require.Equal(t, test.picture, made[0].GetResult().GetSourceDamaged())
			require.Equal(t, test.sound, made[1].GetResult().GetSourceDamaged())
		})
	}
}

// TestDamagedMiddle guarantees that a file which is copied, and shows on the
// way that it is damaged, is encoded after all: what comes decodes without an
// error. It guarantees too that a sound one is not.
func TestDamagedMiddle(t *testing.T) {
	t.Parallel()

	film := smallFilm(t)

	for name, source := range map[string]ffmpeg.Source{
		"noise": hurt(t, film, true, 3000, 400, 600),
		"zeros": hurt(t, film, false, 3000, 400, 600),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			work, dir, made := encode(t, source, media.Spec{Preset: "default"})
			require.True(t, work.GetOutput().GetVideo().GetRenditions()[0].GetCopy(), "a look at its ends doesn't tell")

			result := made[0].GetResult()
			require.True(t, result.GetSourceDamaged())
			require.False(t, result.GetCopied())
			require.EqualValues(t, 168, result.GetFrameCount())
			mediatest.DecodeClean(t, playable(dir, made[0]))

			// Segments may be with players already: they stay copies, and say so.
			work, dir, made = encode(t, source, quick("hls", "240p"))
			require.True(t, work.GetOutput().GetVideo().GetRenditions()[0].GetCopy())
			require.True(t, made[0].GetResult().GetCopied() && made[0].GetResult().GetSourceDamaged())
			require.Equal(t, mediatest.FrameTimes(t, film), mediatest.FrameTimes(t, playable(dir, made[0])))
		})
	}

	_, _, made := encode(t, hurt(t, film, false, 0), media.Spec{Preset: "default"})
	require.True(t, made[0].GetResult().GetCopied())
	require.False(t, made[0].GetResult().GetSourceDamaged())
}

// TestUndamaged guarantees that what is whole isn't taken for damaged, also
// where a group of pictures is open: then the first ones can't all be decoded.
// TestProbe guarantees it of each kind of clip.
func TestUndamaged(t *testing.T) {
	t.Parallel()

	film := mediatest.Clip(t, mediatest.Film)
	sources := map[string]string{
		"open groups": ffmpegMakes(t, filepath.Join(t.TempDir(), "open.mp4"), "-i", film, "-c:a", "copy", "-s", "320x180", "-c:v", "libx264", "-preset", "superfast",
			"-bf", "3", "-b_strategy", "0", "-x264-params", "open-gop=1:keyint=48:scenecut=0", "-pix_fmt", "yuv420p"),
		"cut": ffmpegMakes(t, filepath.Join(t.TempDir(), "cut.mp4"), "-ss", "1", "-i", film, "-c", "copy"),
	}

	for name, path := range sources {
		source, _ := serve(t, path)
		for _, s := range probe(t, source).GetStreams() {
			require.False(t, s.GetDamaged(), "%s, stream %d", name, s.GetIndex())
		}
	}
}
