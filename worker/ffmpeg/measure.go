package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// errResult is what is wrong with a result; it becomes OUTPUT_INVALID.
var errResult = errors.New("bad result")

// Measure reads what an encode of work left in dir and tells what it really
// is: the video renditions, largest first, then the audio rendition of HLS.
// Nothing is taken from the plan but names. It fails with INPUT_TRUNCATED if
// picture or sound is shorter than the source's by more than a frame and
// 0.1 s, and with OUTPUT_INVALID if files are missing, unreadable, or not cut
// at keyframes.
func Measure(work *tcoderv1.EncodeWork, dir string) ([]*tcoderv1.EncodedRendition, error) {
	output := work.GetOutput()
	video, audio := output.GetVideo(), output.GetAudio()
	isHLS := output.GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS

	var renditions []*tcoderv1.EncodedRendition

	add := func(made *tcoderv1.EncodedRendition, copied bool, err error) error {
		if err != nil {
			return resultFault(err)
		}

		made.Result.Copied = copied
		renditions = append(renditions, made)

		return nil
	}

	for _, plan := range video.GetRenditions() {
		var (
			made *tcoderv1.EncodedRendition
			err  error
		)

		if isHLS {
			made, err = measureHLS(dir, plan.GetName())
		} else {
			made, err = measureMP4(dir, plan.GetName(), plan.GetName()+".mp4")
		}

		if err := add(made, plan.GetCopy(), err); err != nil {
			return nil, err
		}

		if err := checkPicture(video, plan, made.GetResult()); err != nil {
			return nil, err
		}
	}

	if audio != nil && (isHLS || video == nil) {
		var (
			made *tcoderv1.EncodedRendition
			err  error
		)

		if isHLS {
			made, err = measureHLS(dir, audio.GetName())
		} else {
			made, err = measureMP4(dir, audio.GetName(), audio.GetName()+".m4a")
		}

		if err := add(made, audio.GetCopy(), err); err != nil {
			return nil, err
		}

		if err := checkSound(work, made.GetResult()); err != nil {
			return nil, err
		}
	}

	return renditions, nil
}

func resultFault(err error) *Fault {
	if errors.Is(err, errResult) || errors.Is(err, fs.ErrNotExist) {
		return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, err.Error(), "FFmpeg's result is not what was planned")
	}

	return machineFault(err.Error(), "the worker can't read its own result")
}

// shortfall is how much an output may be shorter than its source, beside one
// frame: what timestamps lose by rounding and streams by priming.
const shortfall = 100 * time.Millisecond

// checkPicture compares the frames with what the source promised.
func checkPicture(video *tcoderv1.VideoPlan, plan *tcoderv1.RenditionPlan, made *tcoderv1.RenditionResult) error {
	rate := video.GetFrameRate()
	if plan.GetCopy() || video.GetExpectedFrames() == 0 || rate.GetNum() <= 0 || rate.GetDen() <= 0 {
		return nil
	}

	fps := float64(rate.GetNum()) / float64(rate.GetDen())

	missing := float64(video.GetExpectedFrames()) - float64(made.GetFrameCount())
	if missing <= 1+math.Ceil(shortfall.Seconds()*fps) {
		return nil
	}

	return truncated(time.Duration(float64(made.GetFrameCount())/fps*float64(time.Second)),
		time.Duration(float64(video.GetExpectedFrames())/fps*float64(time.Second)))
}

// checkSound compares the duration with what the source promised.
func checkSound(work *tcoderv1.EncodeWork, made *tcoderv1.RenditionResult) error {
	stream := sourceStream(work, work.GetOutput().GetAudio().GetStreamIndex())
	if stream.GetDuration() == nil {
		return nil
	}

	promised := stream.GetDuration().AsDuration() + lateness(work.GetSource(), stream)
	// A frame of sound, of the rarest kind: 2048 samples at 8 kHz.
	const frame = 256 * time.Millisecond

	if found := made.GetDuration().AsDuration(); promised-found > frame+shortfall {
		return truncated(found, promised)
	}

	return nil
}

func truncated(found, promised time.Duration) *Fault {
	return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_TRUNCATED, "", fmt.Sprintf(
		"the source ends at %.2f s, its header says %.2f s", found.Seconds(), promised.Seconds()))
}

// measureHLS measures a rendition's folder.
func measureHLS(dir, name string) (*tcoderv1.EncodedRendition, error) {
	objects, err := finishedIn(dir, name)
	if err != nil {
		return nil, err
	}

	if len(objects) < 2 || objects[0].GetName() != name+"/"+initName {
		return nil, fmt.Errorf("%w: %s: no segments", errResult, name)
	}

	head, err := readTrack(filepath.Join(dir, objects[0].GetName()))
	if err != nil {
		return nil, err
	}

	var (
		sum  totals
		made = &tcoderv1.EncodedRendition{InitSegment: objects[0], Segments: objects[1:]}
	)

	for i, object := range made.GetSegments() {
		if object.GetName() != fmt.Sprintf("%s/%05d%s", name, i, segmentExt) {
			return nil, fmt.Errorf("%w: %s: segment %d is missing", errResult, name, i)
		}

		segment, err := readSegment(filepath.Join(dir, object.GetName()), head)
		if err != nil {
			return nil, err
		}

		if segment.start != sum.ticks {
			return nil, fmt.Errorf("%w: %s: segment %d starts at %d, the one before ends at %d", errResult, name, i, segment.start, sum.ticks)
		}

		if i == 0 {
			// Players drop an encoder's priming, so the first segment plays shorter.
			segment.ticks -= min(segment.ticks, head.priming)
			sum.ticks = head.priming
		}

		object.Duration = durationpb.New(head.duration(segment.ticks))
		sum.add(segment, object.GetSizeBytes(), head)
	}

	sum.ticks -= head.priming
	made.Result = sum.result(name, head)

	return made, nil
}

// totals sum up the segments of a rendition.
type totals struct {
	ticks, frames, bytes uint64
	peakBPS              float64
}

func (t *totals) add(segment segment, size uint64, head track) {
	t.ticks += segment.ticks
	t.frames += segment.frames
	t.bytes += size

	// A last segment of a frame or two says nothing about the peak.
	const shortest = 500 * time.Millisecond

	if d := head.duration(segment.ticks); d >= shortest {
		t.peakBPS = max(t.peakBPS, float64(size)*8/d.Seconds())
	}
}

func (t *totals) result(name string, head track) *tcoderv1.RenditionResult {
	duration := head.duration(t.ticks)
	result := &tcoderv1.RenditionResult{
		Name: name, Codecs: head.codecs, Width: head.width, Height: head.height,
		Duration: durationpb.New(duration), SizeBytes: t.bytes,
	}

	if duration > 0 {
		result.AverageBitrateBps = uint64(float64(t.bytes) * 8 / duration.Seconds())
	}

	result.PeakBitrateBps = max(result.GetAverageBitrateBps(), uint64(t.peakBPS))

	if head.isVideo {
		result.FrameCount = t.frames
		result.FrameRate = reduced(t.frames*uint64(head.timescale), t.ticks)
	}

	return result
}

// measureMP4 measures a progressive file. Sound beside the picture adds its
// codec, and its length if it is the longer.
func measureMP4(dir, name, file string) (*tcoderv1.EncodedRendition, error) {
	path := filepath.Join(dir, file)

	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}

	tracks, err := readTracks(path)
	if err != nil {
		return nil, err
	}

	main := tracks[0]

	var (
		codecs   []string
		duration time.Duration
	)

	for _, t := range tracks {
		if t.isVideo && !main.isVideo {
			main = t
		}

		codecs = append(codecs, t.codecs)
		duration = max(duration, t.duration(t.ticks))
	}

	if main.ticks == 0 {
		return nil, fmt.Errorf("%w: %s: no frames", errResult, file)
	}

	sum := totals{ticks: main.ticks, frames: main.frames, bytes: uint64(info.Size())}
	result := sum.result(name, main)
	result.Codecs = strings.Join(codecs, ",")
	result.Duration = durationpb.New(duration)

	return &tcoderv1.EncodedRendition{
		Result: result,
		File: &tcoderv1.EncodedObject{
			Name: file, SizeBytes: sum.bytes, ContentType: main.contentType(),
		},
	}, nil
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
