package ffmpeg

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// reading is a rendition as read from disk, and how long picture and sound in it last: 0 for
// what isn't in it.
type reading struct {
	rendition      *tcoderv1.EncodedRendition
	picture, sound time.Duration
}

// Measure reads what an encode of work left in dir and tells what it really
// is: the video renditions, largest first, then the audio rendition of HLS.
// Nothing is taken from the plan but names. It fails with INPUT_TRUNCATED if
// picture or sound is shorter than the source's by more than a frame and
// 0.1 s, and with OUTPUT_INVALID if files are missing, unreadable, or not cut
// at keyframes.
func Measure(work *tcoderv1.EncodeWork, dir string) ([]*tcoderv1.EncodedRendition, error) {
	made := newRecorder(work, dir)
	_ = made.take() // what is wrong with a rendition is told with its result

	return measure(work, dir, made)
}

// measure is Measure where the segments were read as they came.
func measure(work *tcoderv1.EncodeWork, dir string, made *recorder) ([]*tcoderv1.EncodedRendition, error) {
	output := work.GetOutput()
	video, audio := output.GetVideo(), output.GetAudio()
	isHLS := output.GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS

	var renditions []*tcoderv1.EncodedRendition

	read := func(name, ext string, copied bool) (reading, error) {
		var (
			found reading
			err   error
		)

		if isHLS {
			found, err = made.result(name)
		} else {
			found, err = measureMP4(dir, name, ext)
		}

		if err != nil {
			return reading{}, resultFault(err)
		}

		found.rendition.Result.Copied = copied
		renditions = append(renditions, found.rendition)

		return found, nil
	}

	for _, plan := range video.GetRenditions() {
		made, err := read(plan.GetName(), ".mp4", plan.GetCopy())
		if err == nil {
			err = checkPicture(work, plan, made)
		}

		if err == nil && audio != nil && !isHLS {
			err = checkSound(work, made)
		}

		if err != nil {
			return nil, err
		}
	}

	if audio != nil && (isHLS || video == nil) {
		made, err := read(audio.GetName(), ".m4a", audio.GetCopy())
		if err == nil {
			err = checkSound(work, made)
		}

		if err != nil {
			return nil, err
		}
	}

	return renditions, nil
}

// shortfall is how much an output may be shorter than its source, beside one
// frame: what timestamps lose by rounding and streams by priming.
const shortfall = 100 * time.Millisecond

// checkPicture compares the picture with what the source promised.
func checkPicture(work *tcoderv1.EncodeWork, plan *tcoderv1.RenditionPlan, made reading) error {
	video := work.GetOutput().GetVideo()

	if made.picture == 0 {
		return resultFault(fmt.Errorf("%w: no picture", errResult))
	}

	if plan.GetCopy() {
		// A copy is cut at packets, which an edit list of the source may hide.
		promised := sourceStream(work, video.GetStreamIndex()).GetDuration().AsDuration()
		if promised-made.picture > tolerance {
			return truncated(made.picture, promised)
		}

		return nil
	}

	frame := time.Duration(float64(time.Second) * float64(video.GetFrameRate().GetDen()) / float64(video.GetFrameRate().GetNum()))

	promised := time.Duration(video.GetExpectedFrames()) * frame
	if chunk := chunkOf(work); chunk != nil {
		promised = length(work)
		if chunk.GetEndFrame() < video.GetExpectedFrames() && made.rendition.GetResult().GetFrameCount() < chunk.GetEndFrame()-chunk.GetFirstFrame() {
			// Where the source goes on, a chunk lacks nothing.
			return truncated(frameTime(work, chunk.GetFirstFrame())+made.picture, time.Duration(video.GetExpectedFrames())*frame)
		}
	}

	if promised-made.picture > frame+shortfall {
		return truncated(made.picture, promised)
	}

	return nil
}

// checkSound compares the sound with what the source promised.
func checkSound(work *tcoderv1.EncodeWork, made reading) error {
	if made.sound == 0 {
		return resultFault(fmt.Errorf("%w: no sound", errResult))
	}

	audio := work.GetOutput().GetAudio()
	stream := sourceStream(work, audio.GetStreamIndex())

	promised := stream.GetDuration().AsDuration()
	if !audio.GetCopy() && promised > 0 {
		promised += lateness(work.GetSource(), stream) // filled with silence
	}

	// A frame of sound, of the rarest kind: 2048 samples at 8 kHz.
	const frame = 256 * time.Millisecond
	if promised-made.sound > frame+shortfall {
		return truncated(made.sound, promised)
	}

	return nil
}

func truncated(found, promised time.Duration) *Fault {
	return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, "", fmt.Sprintf(
		"the source ends at %.2f s, its header says %.2f s; upload the whole file", found.Seconds(), promised.Seconds()))
}

// totals sum up the segments of a rendition.
type totals struct {
	ticks, frames, bytes, peakBPS uint64
}

func (t *totals) add(segment segment, size uint64, head track) {
	t.ticks += segment.ticks
	t.frames += segment.frames
	t.bytes += size

	// A last segment of a frame or two says nothing about the peak.
	const shortest = 500 * time.Millisecond

	if d := head.duration(segment.ticks); d >= shortest {
		t.peakBPS = max(t.peakBPS, bitrate(size, d))
	}
}

func (t *totals) result(name string, head track) *tcoderv1.RenditionResult {
	duration := head.duration(t.ticks)
	result := &tcoderv1.RenditionResult{
		Name: name, Codecs: head.codecs, Codec: head.codec, Profile: head.profile, Level: head.level,
		Width: head.width, Height: head.height,
		Duration: durationpb.New(duration), SizeBytes: t.bytes,
	}

	result.AverageBitrateBps = bitrate(t.bytes, duration)
	result.PeakBitrateBps = max(result.GetAverageBitrateBps(), t.peakBPS)

	if head.isVideo {
		result.FrameCount = t.frames
		result.FrameRate = reduced(t.frames*uint64(head.timescale), t.ticks)
	}

	return result
}

// measureMP4 measures a progressive file. Sound beside the picture adds its
// codec, and its length if it is the longer.
func measureMP4(dir, name, ext string) (reading, error) {
	file, size, err := openResult(dir, name+ext)
	if err != nil {
		return reading{}, err
	}
	defer file.Close() //nolint:errcheck // only read

	tracks, err := readTracks(file)
	if err != nil {
		return reading{}, err
	}

	peak, err := peakBytes(tracks, size)
	if err != nil {
		return reading{}, err
	}

	var (
		found  reading
		codecs []string
		main   = tracks[0]
	)

	for _, t := range tracks {
		codecs = append(codecs, t.codecs)

		if t.isVideo {
			main, found.picture = t, t.duration(t.ticks)
		} else {
			found.sound = t.duration(t.ticks)
		}
	}

	sum := totals{ticks: main.ticks, frames: main.frames, bytes: size}
	result := sum.result(name, main)
	result.Codecs = strings.Join(codecs, ",")
	result.Duration = durationpb.New(max(found.picture, found.sound))
	result.AverageBitrateBps = bitrate(sum.bytes, result.GetDuration().AsDuration())
	result.PeakBitrateBps = max(result.GetAverageBitrateBps(), bitrate(peak, time.Second))

	found.rendition = &tcoderv1.EncodedRendition{
		Result: result,
		File:   &tcoderv1.EncodedObject{Name: name + ext, SizeBytes: size, ContentType: main.contentType()},
	}

	return found, nil
}

// bitrate is bits per second, 0 of nothing.
func bitrate(bytes uint64, d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}

	return uint64(float64(bytes) * 8 / d.Seconds())
}

// reduced is a fraction in lowest terms, unset if it is none.
func reduced(num, den uint64) *tcoderv1.Rational {
	if num == 0 || den == 0 {
		return nil
	}

	a, b := num, den
	for b != 0 {
		a, b = b, a%b
	}

	return &tcoderv1.Rational{Num: int64(num / a), Den: int64(den / a)}
}
