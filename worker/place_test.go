package worker

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// TestRoom guarantees that attempts are in memory as long as they fit there
// together, and on the disk beyond that.
func TestRoom(t *testing.T) {
	t.Parallel()

	r := &room{memory: t.TempDir(), disk: "disk"}

	now, err := scratchAt(r.memory)
	require.NoError(t, err)

	third := now.FreeBytes / shareOfMemory / 3

	first, release := r.take(third)
	require.Equal(t, r.memory, first)

	second, _ := r.take(third)
	require.Equal(t, r.memory, second)

	third3, _ := r.take(2 * third)
	require.Equal(t, "disk", third3)

	release()

	again, _ := r.take(third)
	require.Equal(t, r.memory, again)

	huge, _ := r.take(math.MaxUint64 / 2)
	require.Equal(t, "disk", huge)

	none, _ := (&room{disk: "disk"}).take(0)
	require.Equal(t, "disk", none)
}

// TestScratchPlaces guarantees that a folder that is given is the only one,
// and that the temporary one is there for what doesn't fit into memory.
func TestScratchPlaces(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "own")

	places, err := ScratchPlaces(dir)
	require.NoError(t, err)
	require.Len(t, places, 1)
	require.Equal(t, dir, places[0].Dir)
	require.NotZero(t, places[0].FreeBytes)

	places, err = ScratchPlaces("")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(os.TempDir(), scratchName), places[len(places)-1].Dir)

	for _, place := range places[:len(places)-1] {
		require.True(t, place.InMemory)
	}
}

// TestScratchNeed guarantees that what an attempt keeps is known before: 64
// MiB of segments, whatever they are, and files as large as they can get.
func TestScratchNeed(t *testing.T) {
	t.Parallel()

	video := &tcoderv1.VideoPlan{Renditions: []*tcoderv1.RenditionPlan{{VideoBitrateBps: 8_000_000}, {Copy: true}}}
	encode := func(kind tcoderv1.OutputKind) *tcoderv1.Assignment {
		return &tcoderv1.Assignment{SourceSizeBytes: 1 << 30, Work: &tcoderv1.Assignment_Encode{Encode: &tcoderv1.EncodeWork{
			Output:   &tcoderv1.OutputPlan{Kind: kind, Video: video, Audio: &tcoderv1.AudioPlan{BitrateBps: 1_000_000}},
			Duration: durationpb.New(100 * time.Second),
		}}}
	}

	require.EqualValues(t, boundedScratch, scratchNeed(encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)))
	require.EqualValues(t, boundedScratch+1<<30+137_500_000, scratchNeed(encode(tcoderv1.OutputKind_OUTPUT_KIND_MP4)))
	require.Zero(t, scratchNeed(&tcoderv1.Assignment{Work: &tcoderv1.Assignment_Probe{}}))
	require.EqualValues(t, boundedScratch/4+30, scratchNeed(&tcoderv1.Assignment{Work: &tcoderv1.Assignment_Assemble{
		Assemble: &tcoderv1.AssembleWork{
			Video: []*tcoderv1.Piece{{SizeBytes: 10}, {SizeBytes: 15}}, Audio: []*tcoderv1.Piece{{SizeBytes: 5}},
		},
	}}))
}
