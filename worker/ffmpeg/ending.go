package ffmpeg

import (
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// shortSegment is how long a segment may be that players make nothing of.
const shortSegment = 100 * time.Millisecond

// shortEnd is the frame at which no segment may begin because too little is left
// for it, 0 if there is none. Players find no use for a segment so short, and
// wait for the end for ever. Encoders other than x264 can't leave out a keyframe
// without making others that segments can't begin with.
func shortEnd(work *tcoderv1.EncodeWork) uint64 {
	output, video := work.GetOutput(), work.GetOutput().GetVideo()
	if output.GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_HLS || len(video.GetSegmentStarts()) > 0 || video.GetCodec() != tcoderv1.VideoCodec_VIDEO_CODEC_H264 {
		return 0
	}

	pictures := expectedFrames(work)

	left := pictures % segmentFrames(output)
	if pictures == left || left == 0 && knownFrames(work) > 0 || frameTime(work, left) > shortSegment {
		return 0
	}

	return pictures - left
}

// soundTarget is the length of a segment of sound for segments of about a
// length. One by itself for the last frame or two, which priming and padding
// add to sound, would keep players from seeing the end: it is spread over the
// others, some milliseconds each.
func soundTarget(work *tcoderv1.EncodeWork, target time.Duration) time.Duration {
	const added = 150 * time.Millisecond

	lasts := length(work)

	stream := sourceStream(work, work.GetOutput().GetAudio().GetStreamIndex())
	if d := stream.GetDuration().AsDuration(); d > 0 {
		lasts = d + lateness(work.GetSource(), stream)
	}

	n := int64((lasts + added) / target)
	if n < 1 || lasts-time.Duration(n)*target > shortSegment {
		return target
	}

	return max(target, (lasts+added)/time.Duration(n))
}
