package worker

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// assembly encodes mediatest.Film as HLS, and returns the task that puts its
// smaller rendition and its sound together.
func (b *workBundle) assembly(t *testing.T) *tcoderv1.Assignment {
	t.Helper()

	encode := b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)
	made := b.do(t, t.Context(), encode)
	b.requireStored(t, made)

	pieces := func(r *tcoderv1.EncodedRendition) (list []*tcoderv1.Piece) {
		for _, object := range objectsOf(r) {
			list = append(list, &tcoderv1.Piece{Name: object.GetName(), SizeBytes: object.GetSizeBytes()})
		}

		return list
	}
	video, audio := made.GetEncode().GetRenditions()[1], made.GetEncode().GetRenditions()[2]

	output := proto.CloneOf(encode.GetEncode().GetOutput())
	output.Kind = tcoderv1.OutputKind_OUTPUT_KIND_MP4
	output.Video.Renditions = output.GetVideo().GetRenditions()[1:]
	output.Audio.Language = "deu"

	assignment := b.assignment()
	assignment.Kind = tcoderv1.TaskKind_TASK_KIND_ASSEMBLE
	assignment.Work = &tcoderv1.Assignment_Assemble{Assemble: &tcoderv1.AssembleWork{
		Output: output, Video: pieces(video), Audio: pieces(audio), FrameCount: video.GetResult().GetFrameCount(),
		VideoDuration: video.GetResult().GetDuration(), AudioDuration: audio.GetResult().GetDuration(),
	}}

	return assignment
}

// TestAssemble guarantees that a file put together of segments has the very
// packets of them, in sync and with its index first, though the store breaks
// off transfers.
func TestAssemble(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))
	assignment := b.assembly(t)

	var gets atomic.Int64

	b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		broken := r.Method == http.MethodGet && gets.Add(1)%3 == 0
		if broken {
			http.Error(w, "", http.StatusInternalServerError)
		}

		return broken
	})

	report := b.do(t, t.Context(), assignment)
	objects := b.requireStored(t, report)
	require.Len(t, objects, 1)
	require.Equal(t, "240p.mp4", objects[0].GetName())
	require.Equal(t, "avc1.42c015,mp4a.40.2", report.GetEncode().GetRenditions()[0].GetResult().GetCodecs())

	keep := func(name string, pieces []*tcoderv1.Piece) string {
		path := filepath.Join(t.TempDir(), name)

		var whole []byte

		for _, piece := range pieces {
			content, _ := b.store.get(folder + piece.GetName())
			whole = append(whole, content...)
		}

		require.NoError(t, os.WriteFile(path, whole, 0o600))

		return path
	}
	file := keep("file.mp4", []*tcoderv1.Piece{{Name: "240p.mp4"}})
	video, audio := keep("video.mp4", assignment.GetAssemble().GetVideo()), keep("audio.mp4", assignment.GetAssemble().GetAudio())

	mediatest.RequireFaststart(t, file)
	mediatest.DecodeClean(t, file)
	require.Equal(t, mediatest.PacketsSum(t, video, "v"), mediatest.PacketsSum(t, file, "v"))
	require.Equal(t, mediatest.PacketsSum(t, audio, "a"), mediatest.PacketsSum(t, file, "a"))
	require.Equal(t, mediatest.FrameTimes(t, video), mediatest.FrameTimes(t, file))
	require.Zero(t, mediatest.Spans(t, file)[1].First)
	require.InDelta(t, mediatest.Spans(t, audio)[0].End.Seconds(), mediatest.Spans(t, file)[1].End.Seconds(), 0.001)
	require.Equal(t, "deu", mediatest.Probe(t, file).Audio[0].Language)
	require.InDelta(t, 1, b.progress[len(b.progress)-1].GetFraction(), 0.001)
}

// TestAssembleFaults guarantees that what this job made, and is gone or is not
// what it was, isn't held against the job's input.
func TestAssembleFaults(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))
	whole := b.assembly(t)

	for name, test := range map[string]struct {
		spoil  func(*tcoderv1.AssembleWork)
		reason tcoderv1.ErrorReason
	}{
		"a segment is gone": {
			func(w *tcoderv1.AssembleWork) { w.Video[3].Name = "240p/99999.m4s" },
			tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"a segment has another size": {
			func(w *tcoderv1.AssembleWork) { w.Audio[2].SizeBytes++ },
			tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"a segment is left out": {
			func(w *tcoderv1.AssembleWork) { w.Video = slices.Delete(w.GetVideo(), 3, 4) },
			tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID,
		},
		"the sound is another's": {
			func(w *tcoderv1.AssembleWork) { w.Audio = w.GetAudio()[:4] },
			tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID,
		},
	} {
		assignment := proto.CloneOf(whole)
		test.spoil(assignment.GetAssemble())

		fault := b.do(t, t.Context(), assignment).GetFault()
		require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, fault.GetClass(), "%s: %v", name, fault)
		require.Equal(t, test.reason, fault.GetFailure().GetReason(), name)
	}
}
