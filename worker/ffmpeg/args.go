package ffmpeg

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// errWork is why no argument list could be made of a work. The control plane
// never sends such a one.
var errWork = errors.New("the work can't be done")

// lengthSlack is how far an output may run past the planned duration before
// it is cut: a source whose timestamps jump by hours must not fill the disk.
const lengthSlack = time.Second

// EncodeArgs returns the arguments of the one FFmpeg process that makes an
// output: one decode, one chain of filters for all renditions. It is pure.
// Paths of outputs are relative to the folder that FFmpeg is run in, which has
// a folder for each HLS rendition. Of tools, Threads and Zimg matter.
func EncodeArgs(work *tcoderv1.EncodeWork, sourceURL string, tools Tools) ([]string, error) {
	if err := checkWork(work); err != nil {
		return nil, err
	}

	args := []string{
		"-nostdin", "-hide_banner", "-nostats", "-v", "level+warning",
		"-progress", "pipe:1", "-stats_period", "0.5",
	}
	args = append(args, filterThreads(work.GetOutput().GetVideo(), tools.Threads)...)
	args = append(args, codecThreads(tools.Threads)...)
	args = append(args, inputArgs(work.GetLimits())...)
	args = append(args, chunkInput(work)...)
	args = append(args, readRate(work)...)
	args = append(args, "-i", sourceURL)

	video, audio := work.GetOutput().GetVideo(), work.GetOutput().GetAudio()
	if graph := filterGraph(work, tools.Zimg); graph != "" {
		args = append(args, "-filter_complex", graph)
	}

	encoded, shares := 0, encoderThreads(encodedOf(video), tools.Threads)

	for _, rendition := range video.GetRenditions() {
		if rendition.GetCopy() {
			args = append(args, "-map", input(video.GetStreamIndex()), "-c:v", "copy")
		} else {
			args = append(args, "-map", fmt.Sprintf("[v%d]", encoded))
			args = append(args, videoArgs(work, rendition, shares[encoded])...)
			args = append(args, keyframeArgs(work)...)
			encoded++

			if n := knownFrames(work); n > 0 {
				args = append(args, "-frames:v", strconv.FormatUint(n, 10))
			}
		}

		if work.GetOutput().GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS {
			args = append(args, hlsArgs(work, rendition.GetName(), !rendition.GetCopy() && len(video.GetSegmentStarts()) > 0)...)

			continue
		}

		if audio != nil {
			args = append(args, audioArgs(work)...)
		}

		args = append(args, mp4Args(work, rendition.GetName()+".mp4")...)
	}

	if audio != nil && work.GetOutput().GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS {
		args = append(append(args, audioArgs(work)...), hlsArgs(work, audio.GetName(), false)...)
	} else if video == nil {
		args = append(append(args, audioArgs(work)...), mp4Args(work, audio.GetName()+".m4a")...)
	}

	return append(args, soundCheck(work)...), nil
}

// readRate bounds how fast a film is read for its sound alone, in seconds of it
// a second: to read all of a long one at once takes as much of a machine as the
// segment that a player starts with, which is made beside it. Its pictures take
// dozens of machines to be encoded faster.
func readRate(work *tcoderv1.EncodeWork) []string {
	const speed = "100"

	film := slices.ContainsFunc(work.GetSource().GetStreams(), isPicture)
	if !film || work.GetOutput().GetVideo() != nil || work.GetOutput().GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_HLS {
		return nil
	}

	return []string{"-readrate", speed}
}

func checkWork(work *tcoderv1.EncodeWork) error {
	output := work.GetOutput()
	video, audio := output.GetVideo(), output.GetAudio()

	switch {
	case output.GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_HLS && output.GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_MP4:
		return fmt.Errorf("%w: output kind %s", errWork, output.GetKind())
	case video == nil && audio == nil:
		return fmt.Errorf("%w: neither picture nor sound", errWork)
	case output.GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS && output.GetSegmentSeconds() <= 0:
		return fmt.Errorf("%w: no segment duration", errWork)
	case audio != nil && !plainName(audio.GetName()):
		return fmt.Errorf("%w: name of the audio rendition", errWork)
	case video == nil:
		return checkChunk(work)
	case len(video.GetRenditions()) == 0:
		return fmt.Errorf("%w: no renditions", errWork)
	case videoEncoder(video.GetCodec()) == "":
		return fmt.Errorf("%w: video codec %s", errWork, video.GetCodec())
	}

	copies := 0

	for _, rendition := range video.GetRenditions() {
		if rendition.GetCopy() {
			copies++

			continue
		}

		if rendition.GetWidth() == 0 || rendition.GetHeight() == 0 || rendition.GetWidth()%2+rendition.GetHeight()%2 != 0 {
			return fmt.Errorf("%w: %d x %d pixels", errWork, rendition.GetWidth(), rendition.GetHeight())
		}

		if video.GetFrameRate().GetNum() <= 0 || video.GetFrameRate().GetDen() <= 0 || video.GetGopFrames() == 0 {
			return fmt.Errorf("%w: no cadence", errWork)
		}
	}

	for _, rendition := range video.GetRenditions() {
		if !plainName(rendition.GetName()) {
			return fmt.Errorf("%w: name of a rendition", errWork)
		}
	}

	// Without them, the source's keyframes are not those of the other rungs.
	if output.GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS && copies > 0 && len(video.GetSegmentStarts()) == 0 {
		return fmt.Errorf("%w: a copied rendition that is not aligned", errWork)
	}

	return checkChunk(work)
}

// plainName reports whether a name is a single element of a path, and nothing
// that FFmpeg takes for a pattern or an option.
func plainName(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
		if !letter && (i == 0 || r != '-' && r != '.') {
			return false
		}
	}

	return name != ""
}

func input(index uint32) string { return fmt.Sprintf("0:%d", index) }

// sourceStream is the stream of the source with an index, nil if the probe
// doesn't tell of it.
func sourceStream(work *tcoderv1.EncodeWork, index uint32) *tcoderv1.StreamInfo {
	for _, stream := range work.GetSource().GetStreams() {
		if stream.GetIndex() == index {
			return stream
		}
	}

	return nil
}

// lateness is how long after the container's clock a stream starts.
func lateness(source *tcoderv1.ProbeResult, stream *tcoderv1.StreamInfo) time.Duration {
	return max(0, stream.GetStartTime().AsDuration()-source.GetStartTime().AsDuration())
}

// inSync is how late a sound may start without silence before it.
const inSync = 5 * time.Millisecond

// audioArgs map and encode the sound. It starts with the container's clock,
// like the picture, and holes are filled with silence.
func audioArgs(work *tcoderv1.EncodeWork) []string {
	audio := work.GetOutput().GetAudio()
	args := []string{"-map", input(audio.GetStreamIndex())}

	if audio.GetCopy() {
		args = append(args, "-c:a", "copy")
	} else {
		layout := "stereo"
		if audio.GetChannels() == 1 {
			layout = "mono"
		}

		// Only where it is needed: filters start anew when a source changes its
		// channels midway, and would fill with silence from the start again.
		first := ""
		if stream := sourceStream(work, audio.GetStreamIndex()); lateness(work.GetSource(), stream) > inSync {
			first = ":first_pts=0"
		}

		args = append(args, "-c:a", "aac", "-b:a", strconv.FormatUint(uint64(audio.GetBitrateBps()), 10), "-af",
			fmt.Sprintf("aresample=osr=%d:async=1%s,aformat=channel_layouts=%s", audio.GetSampleRateHz(), first, layout))
	}

	if audio.GetLanguage() != "" {
		args = append(args, "-metadata:s:a:0", "language="+audio.GetLanguage())
	}

	return args
}

// commonArgs bound an output, and keep out what a source says about its maker
// and where it was.
func commonArgs(work *tcoderv1.EncodeWork) []string {
	args := []string{"-map_metadata", "-1", "-map_chapters", "-1", "-max_muxing_queue_size", "4096"}

	longest := work.GetLimits().GetMaxDuration().AsDuration()
	if d := length(work); d > 0 && !mayBeLonger(work.GetSource()) {
		longest = d + lengthSlack
	}

	if longest > 0 {
		args = append(args, "-t", seconds(longest))
	}

	return args
}

// mayBeLonger reports whether a source may last longer than it was probed:
// where a duration is only measured, timestamps may start over in the middle.
func mayBeLonger(source *tcoderv1.ProbeResult) bool {
	return isOne(source.GetFormat(), measured())
}

// expectedFrames is the number of frames that a rendition has, as planned; 0 if
// that isn't known.
func expectedFrames(work *tcoderv1.EncodeWork) uint64 {
	if chunk := chunkOf(work); chunk != nil {
		return chunk.GetEndFrame() - chunk.GetFirstFrame()
	}

	return work.GetOutput().GetVideo().GetExpectedFrames()
}

// knownFrames is expectedFrames, 0 if the source may be longer.
func knownFrames(work *tcoderv1.EncodeWork) uint64 {
	if chunkOf(work) == nil && mayBeLonger(work.GetSource()) {
		return 0
	}

	return expectedFrames(work)
}

func mp4Args(work *tcoderv1.EncodeWork, path string) []string {
	return append(commonArgs(work), "-movflags", "+faststart", "-f", "mp4", path)
}

// hlsArgs package one rendition in a folder of its own. FFmpeg's playlist is
// left behind: the control plane writes its own from what was measured. With
// everyKeyframe a segment begins at each keyframe.
func hlsArgs(work *tcoderv1.EncodeWork, name string, everyKeyframe bool) []string {
	// A microsecond less than the segment, because FFmpeg cuts at the first
	// keyframe that is not before a multiple of it: rounded up, it would miss.
	target := time.Duration(work.GetOutput().GetSegmentSeconds()*float64(time.Second)).Truncate(time.Microsecond) - time.Microsecond
	if len(work.GetOutput().GetVideo().GetSegmentStarts()) > 0 {
		target += time.Microsecond // the plan reckons with this very distance
	}

	if everyKeyframe {
		target = time.Microsecond
	}

	if name == work.GetOutput().GetAudio().GetName() {
		target = soundTarget(work, target)
	}

	args := append(commonArgs(work), chunkPackaging(work)...)

	return append(args,
		// The edit list carries negative timestamps of encoders; a shift would
		// take picture and sound apart.
		"-avoid_negative_ts", "disabled",
		"-f", "hls", "-hls_time", seconds(target), "-hls_playlist_type", "vod",
		"-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", initName,
		// Under its own name a segment is complete.
		"-hls_flags", "independent_segments+temp_file",
		"-hls_segment_filename", name+"/%05d"+segmentExt, name+"/"+playlistName)
}

// The files of an HLS rendition's folder.
const (
	initName     = "init.mp4"
	segmentExt   = ".m4s"
	playlistName = "index.m3u8"
)

func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', 6, 64)
}
