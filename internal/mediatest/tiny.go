package mediatest

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// tiny are clips of a second and some kilobytes, one of each kind of container, by FFmpeg's arguments after two inputs:
// a moving picture and a tone.
func tiny() map[string]string {
	const h264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p "

	return map[string]string{
		"mp4":        h264 + "-c:a aac",
		"fragmented": h264 + "-c:a aac -movflags +frag_keyframe+empty_moov -f mp4",
		"mkv":        "-c:v libvpx -deadline realtime -c:a libvorbis", // and WebM
		"ts":         "-c:v mpeg2video -c:a mp2",
		"flv":        "-c:v flv1 -c:a libmp3lame -ar 44100",
		"avi":        "-c:v mpeg4 -c:a libmp3lame",
		"ogg":        "-c:v libtheora -c:a libvorbis",
		"gif":        "-an",
		"mp3":        "-vn -c:a libmp3lame",
		"wav":        "-vn -c:a pcm_s16le",
	}
}

// TinyKinds are the kinds of tiny clips, in order.
func TinyKinds() []string {
	kinds := make([]string, 0, len(tiny()))
	for kind := range tiny() {
		kinds = append(kinds, kind)
	}

	slices.Sort(kinds)

	return kinds
}

// Tiny returns the tiny clip of a kind: 128x72, 12 pictures, and a second of sound, less than 200 KB.
func Tiny(t testing.TB, kind string) string {
	t.Helper()

	args, known := tiny()[kind]
	require.True(t, known, "no container is called %q", kind)

	ext := "." + kind
	if kind == "fragmented" {
		ext = ".mp4"
	}

	path, err := clip(t.Context(), cacheDir(t), "tiny-"+kind, recipe{
		ext: ext, args: split("-f lavfi -i testsrc2=s=128x72:r=12:d=1 -f lavfi -i sine=r=44100:d=1 " + args),
	})
	require.NoError(t, err)

	return path
}

// Mutate returns a copy of a file that is broken as the seed says, always in the same way. It favours the start, where
// containers have their tables, and numbers that lie.
func Mutate(content []byte, seed uint64) []byte {
	const head, most = 4096, 4

	noise := rand.New(rand.NewPCG(seed, uint64(len(content))))
	broken := slices.Clone(content)

	for range 1 + noise.IntN(most) {
		if len(broken) < 16 {
			break
		}

		within := len(broken)
		if noise.IntN(2) == 0 {
			within = min(within, head)
		}

		at := noise.IntN(within - 8)
		end := min(len(broken), at+1+noise.IntN(512))

		switch noise.IntN(8) {
		case 0:
			broken[at] ^= 1 << noise.IntN(8)
		case 1:
			broken[at] = byte(noise.Uint32())
		case 2:
			lies := []uint32{0, 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, noise.Uint32()}
			binary.BigEndian.PutUint32(broken[at:], lies[noise.IntN(len(lies))])
		case 3:
			lies := []uint64{0, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1 << 40}
			binary.BigEndian.PutUint64(broken[at:], lies[noise.IntN(len(lies))])
		case 4:
			clear(broken[at:end])
		case 5:
			broken = slices.Insert(broken, at, broken[at:end]...)
		case 6:
			broken = slices.Delete(broken, at, end)
		case 7:
			broken = broken[:max(16, noise.IntN(len(broken)))]
		}
	}

	return broken
}
