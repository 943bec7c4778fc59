package ffmpeg

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// A chunk is cut where the whole would have had its frames: timestamps stay
// those of the whole source, the constant cadence is made from them, and only
// then the chunk's frames are kept. So no frame is missing or doubled where
// two chunks meet, and their segments fit one init segment.

// chunkOf is the range of frames that a work is about, nil for the whole.
func chunkOf(work *tcoderv1.EncodeWork) *tcoderv1.Chunk {
	if chunks := work.GetOutput().GetChunks(); len(chunks) > 0 {
		return chunks[0]
	}

	return nil
}

// opens reports whether a work is what a player starts with: the first segment
// of one rendition.
func opens(work *tcoderv1.EncodeWork) bool {
	chunk := chunkOf(work)

	return chunk != nil && chunk.GetFirstFrame() == 0 && len(work.GetOutput().GetVideo().GetRenditions()) == 1
}

func checkChunk(work *tcoderv1.EncodeWork) error {
	output, chunk := work.GetOutput(), chunkOf(work)
	if chunk == nil {
		return nil
	}

	video := output.GetVideo()

	switch {
	case len(output.GetChunks()) > 1, output.GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_HLS, video == nil, output.GetAudio() != nil:
		return fmt.Errorf("%w: a chunk of more than a picture in HLS", errWork)
	case chunk.GetEndFrame() <= chunk.GetFirstFrame(), chunk.GetEndFrame() > video.GetExpectedFrames():
		return fmt.Errorf("%w: frames %d to %d of %d", errWork, chunk.GetFirstFrame(), chunk.GetEndFrame(), video.GetExpectedFrames())
	case !startsSegment(output, chunk.GetFirstFrame()):
		return fmt.Errorf("%w: a chunk that doesn't begin with a segment", errWork)
	}

	return nil
}

// startsSegment reports whether a segment begins with a frame.
func startsSegment(output *tcoderv1.OutputPlan, frame uint64) bool {
	if starts := output.GetVideo().GetSegmentStarts(); len(starts) > 0 {
		_, found := slices.BinarySearch(starts, frame)

		return found
	}

	return frame%segmentFrames(output) == 0
}

// segmentFrames is the number of frames of a segment.
func segmentFrames(output *tcoderv1.OutputPlan) uint64 {
	video := output.GetVideo()
	rate := float64(video.GetFrameRate().GetNum()) / float64(video.GetFrameRate().GetDen())

	return max(1, uint64(math.Round(output.GetSegmentSeconds()*rate)))
}

const (
	// preRoll is how long before a chunk FFmpeg seeks, if no keyframe is known:
	// containers find keyframes by decoding time, which is earlier than the picture's.
	preRoll = time.Second
	// postKey is how long after a known keyframe FFmpeg seeks, lest it find the one before.
	postKey = time.Millisecond
)

// chunkInput seeks to a keyframe before the chunk and keeps the timestamps.
// What comes before the chunk is decoded, and dropped by chunkPreRoll or after
// the cadence.
func chunkInput(work *tcoderv1.EncodeWork) []string {
	chunk := chunkOf(work)
	if chunk == nil {
		return nil
	}

	at := max(0, frameTime(work, chunk.GetFirstFrame())-preRoll)
	if key := chunk.GetKeyframeTime(); key != nil {
		at = key.AsDuration() + postKey
	}

	return []string{"-copyts", "-start_at_zero", "-noaccurate_seek", "-ss", seconds(at)}
}

// chunkPreRoll drops what comes before a chunk before it is scaled, where it is
// known which picture of the source is the last that is shown when the chunk
// begins: a slow source may show one for long.
func chunkPreRoll(work *tcoderv1.EncodeWork) []string {
	const spare = 2 // pictures

	chunk, video := chunkOf(work), work.GetOutput().GetVideo()
	stream := sourceStream(work, video.GetStreamIndex())
	rate := stream.GetFrameRate()

	if chunk.GetFirstFrame() == 0 || !stream.GetSteady() || video.GetDeinterlace() || rate.GetNum() <= 0 {
		return nil
	}

	before := time.Duration(spare * float64(rate.GetDen()) / float64(rate.GetNum()) * float64(time.Second))

	return []string{"trim=start=" + seconds(max(0, frameTime(work, chunk.GetFirstFrame())-before))}
}

// chunkFilters keep the frames of a chunk, after the cadence.
func chunkFilters(work *tcoderv1.EncodeWork) string {
	chunk := chunkOf(work)
	if chunk == nil {
		return ""
	}

	return fmt.Sprintf(",trim=start_pts=%d:end_pts=%d,setpts=PTS-%d", chunk.GetFirstFrame(), chunk.GetEndFrame(), chunk.GetFirstFrame())
}

// chunkPackaging numbers the segments of a chunk, and puts its timestamps, from
// 0, back to where they were.
func chunkPackaging(work *tcoderv1.EncodeWork) []string {
	chunk := chunkOf(work)
	if chunk == nil {
		return nil
	}

	return []string{
		"-output_ts_offset", seconds(frameTime(work, chunk.GetFirstFrame())),
		"-start_number", strconv.Itoa(firstSegment(work)),
		"-hls_segment_options", "movflags=+frag_discont",
	}
}

// firstSegment is the number of a work's first segment.
func firstSegment(work *tcoderv1.EncodeWork) int {
	chunk := chunkOf(work)
	if chunk == nil {
		return 0
	}

	if starts := work.GetOutput().GetVideo().GetSegmentStarts(); len(starts) > 0 {
		at, _ := slices.BinarySearch(starts, chunk.GetFirstFrame())

		return at
	}

	return int(chunk.GetFirstFrame() / segmentFrames(work.GetOutput()))
}

func frameTime(work *tcoderv1.EncodeWork, frame uint64) time.Duration {
	return time.Duration(timeOf(work, frame, float64(time.Second)))
}

// timeOf is when a frame is shown, in whole units of which a second has perSecond.
func timeOf(work *tcoderv1.EncodeWork, frame uint64, perSecond float64) float64 {
	rate := work.GetOutput().GetVideo().GetFrameRate()

	return math.Round(float64(frame) * float64(rate.GetDen()) / float64(rate.GetNum()) * perSecond)
}

// firstTick is where a work's first segment starts, in units of a track.
func firstTick(work *tcoderv1.EncodeWork, head track) uint64 {
	chunk := chunkOf(work)
	if chunk == nil {
		return 0
	}

	return uint64(timeOf(work, chunk.GetFirstFrame(), float64(head.timescale)))
}

// length is how long a work's result lasts, 0 if that isn't known.
func length(work *tcoderv1.EncodeWork) time.Duration {
	if chunk := chunkOf(work); chunk != nil {
		return frameTime(work, chunk.GetEndFrame()-chunk.GetFirstFrame())
	}

	return work.GetDuration().AsDuration()
}
