package ffmpeg

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

func videoEncoder(codec tcoderv1.VideoCodec) string {
	switch codec {
	case tcoderv1.VideoCodec_VIDEO_CODEC_H264:
		return "libx264"
	case tcoderv1.VideoCodec_VIDEO_CODEC_HEVC:
		return "libx265"
	case tcoderv1.VideoCodec_VIDEO_CODEC_AV1:
		return "libsvtav1"
	case tcoderv1.VideoCodec_VIDEO_CODEC_UNSPECIFIED:
	}

	return ""
}

// videoArgs encode a rendition. Groups of pictures are closed and equally
// long in all renditions: a keyframe each GopFrames, and nowhere else but for
// what keyframeArgs say.
func videoArgs(work *tcoderv1.EncodeWork, rendition *tcoderv1.RenditionPlan, threads int) []string {
	video := work.GetOutput().GetVideo()
	gop := strconv.FormatUint(uint64(video.GetGopFrames()), 10)
	args := []string{"-c:v", videoEncoder(video.GetCodec())}

	switch video.GetCodec() {
	case tcoderv1.VideoCodec_VIDEO_CODEC_HEVC:
		args = append(args, "-preset", video.GetEncoderPreset(), "-profile:v", "main", "-tag:v", "hvc1",
			"-x265-params", "log-level=error:open-gop=0:scenecut=0:keyint="+gop+":min-keyint="+gop+reordering(work)+ownThreads("pools", threads))
	case tcoderv1.VideoCodec_VIDEO_CODEC_AV1:
		args = append(args, "-preset", svtPreset(video.GetEncoderPreset()), "-g", gop, "-svtav1-params", "scd=0:irefresh-type=2"+ownThreads("lp", threads))
	case tcoderv1.VideoCodec_VIDEO_CODEC_H264, tcoderv1.VideoCodec_VIDEO_CODEC_UNSPECIFIED:
		args = append(args, "-preset", video.GetEncoderPreset(), "-profile:v", "high",
			"-g", strconv.FormatUint(longestGOP(work), 10), "-keyint_min", gop, "-sc_threshold", "0", "-flags:v", "+cgop")
		args = append(args, codecThreads(threads)...)
	}

	args = append(args, rateArgs(video, rendition.GetVideoBitrateBps())...)

	// The filters made the cadence constant. cfr holds the first picture from
	// the start of the container's clock where it comes later, and fills what
	// FFmpeg loses when a source changes its size midway and the filters start
	// anew.
	return append(args, "-fps_mode", "cfr")
}

// reordering leaves B-frames out of what has no more than a few pictures: x265
// takes how much later than decoded they are shown from the third picture, and
// without one from memory that it never wrote.
func reordering(work *tcoderv1.EncodeWork) string {
	const few = 4

	if pictures := expectedFrames(work); pictures == 0 || pictures > few {
		return ""
	}

	return ":bframes=0"
}

// longestGOP is how many frames are between two keyframes at most.
func longestGOP(work *tcoderv1.EncodeWork) uint64 {
	gop := uint64(work.GetOutput().GetVideo().GetGopFrames())
	if shortEnd(work) > 0 {
		return 2 * gop
	}

	return gop
}

// keyframeArgs put a keyframe at the start of each segment, where the plan says
// where that is, or at the start of each group of pictures but one.
func keyframeArgs(work *tcoderv1.EncodeWork) []string {
	if end := shortEnd(work); end > 0 {
		return []string{"-force_key_frames", fmt.Sprintf("expr:not(mod(n,%d))*not(eq(n,%d))", work.GetOutput().GetVideo().GetGopFrames(), end)}
	}

	from, until := uint64(0), uint64(math.MaxUint64)
	if chunk := chunkOf(work); chunk != nil {
		from, until = chunk.GetFirstFrame(), chunk.GetEndFrame()
	}

	var times []string

	for _, frame := range work.GetOutput().GetVideo().GetSegmentStarts() {
		if frame >= from && frame < until {
			times = append(times, seconds(frameTime(work, frame-from)))
		}
	}

	if len(times) == 0 {
		return nil
	}

	return []string{"-force_key_frames", strings.Join(times, ",")}
}

// rateArgs say how bits are spent. The buffer holds 1.5 s at the cap.
func rateArgs(video *tcoderv1.VideoPlan, bps uint32) []string {
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	bitrate := uint64(bps)
	capped := video.GetRateControl() != tcoderv1.RateControl_RATE_CONTROL_BITRATE

	if video.GetCodec() == tcoderv1.VideoCodec_VIDEO_CODEC_AV1 {
		if capped {
			return []string{"-crf", text(uint64(svtCRF(video.GetCrf()))), "-maxrate", text(bitrate), "-bufsize", text(bitrate * 3 / 2)}
		}

		return []string{"-b:v", text(bitrate)}
	}

	if capped {
		return []string{"-crf", text(uint64(video.GetCrf())), "-maxrate", text(bitrate), "-bufsize", text(bitrate * 3 / 2)}
	}

	// Room for 7 % above the target lets the encoder meet it.
	return []string{"-b:v", text(bitrate), "-maxrate", text(bitrate * 107 / 100), "-bufsize", text(bitrate * 3 / 2)}
}

// svtPreset is the preset of SVT-AV1 that takes the place of x264's.
func svtPreset(x264 string) string {
	switch x264 {
	case "ultrafast":
		return "12"
	case "superfast":
		return "11"
	case "faster":
		return "9"
	case "fast":
		return "8"
	case "medium":
		return "7"
	case "slow":
		return "6"
	default:
		return "10"
	}
}

// svtCRF brings x264's scale of quality to SVT-AV1's, whose middle is 12
// higher.
func svtCRF(x264 uint32) uint32 {
	const offset, highest = 12, 63

	return min(x264+offset, highest)
}
