package ffmpeg

import (
	"context"
	"errors"
	"fmt"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// AssembleRequest is a file that is put together of segments.
type AssembleRequest struct {
	// Video and Audio are http URLs on one loopback address. Each reads as an
	// init segment and the segments that follow it. Audio may be empty.
	Video, Audio string
	// TransferError is as in Source.
	TransferError func() error
	// Work is what to make.
	Work *tcoderv1.AssembleWork
	// Dir is an existing, empty folder for the result.
	Dir string
	// TimeLimit and OnProgress are as in EncodeRequest.
	TimeLimit  time.Duration
	OnProgress func(Progress)
}

// AssembleArgs returns the arguments of the FFmpeg process that puts a file
// together. Nothing is encoded: every packet keeps its bytes and its time. The
// segments are read once, from their start to their end, so that it takes no
// more memory for a longer file than its index does.
func AssembleArgs(work *tcoderv1.AssembleWork, video, audio string) ([]string, error) {
	renditions := work.GetOutput().GetVideo().GetRenditions()
	if len(renditions) != 1 || !plainName(renditions[0].GetName()) {
		return nil, fmt.Errorf("%w: not one rendition", errWork)
	}

	args := []string{
		"-nostdin", "-hide_banner", "-nostats", "-v", "level+warning",
		"-progress", "pipe:1", "-stats_period", "0.5", "-copyts",
	}

	for _, url := range []string{video, audio} {
		if url != "" {
			args = append(append(args, inputArgs(nil)...), "-seekable", "0", "-i", url)
		}
	}

	args = append(args, "-map", "0:v:0", "-c:v", "copy")
	if work.GetOutput().GetVideo().GetCodec() == tcoderv1.VideoCodec_VIDEO_CODEC_HEVC {
		args = append(args, "-tag:v", "hvc1")
	}

	if audio != "" {
		args = append(args, "-map", "1:a:0", "-c:a", "copy")
		if language := work.GetOutput().GetAudio().GetLanguage(); language != "" {
			args = append(args, "-metadata:s:a:0", "language="+language)
		}
	}

	return append(args, "-map_metadata", "-1", "-map_chapters", "-1", "-max_muxing_queue_size", "4096",
		"-movflags", "+faststart", "-f", "mp4", renditions[0].GetName()+".mp4"), nil
}

// Assemble puts a file together in req.Dir and returns what it really is. It
// fails with OUTPUT_INVALID if that isn't what the segments hold. Ends and
// faults are as Encode's.
func Assemble(ctx context.Context, tools Tools, req AssembleRequest) (*tcoderv1.EncodedRendition, error) {
	args, err := AssembleArgs(req.Work, req.Video, req.Audio)
	if err != nil {
		return nil, unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, err.Error(), "the plan can't be carried out by this worker")
	}

	log, err := assemble(ctx, tools.withDefaults(), req, args)
	if err != nil {
		return nil, err
	}

	name := req.Work.GetOutput().GetVideo().GetRenditions()[0].GetName()

	found, err := measureMP4(req.Dir, name, ".mp4")
	if err == nil {
		err = checkAssembled(req.Work, found)
	}

	if err != nil {
		err = resultFault(err)
		if fault, ok := errors.AsType[*Fault](err); ok {
			fault.Log += "\n" + log
		}

		return nil, err
	}

	return found.rendition, nil
}

// assemble runs FFmpeg and returns the end of its standard error.
func assemble(ctx context.Context, tools Tools, req AssembleRequest, args []string) (string, error) {
	source := Source{URL: req.Video, TransferError: req.TransferError}
	run := tools.maker(source, req.Dir, args, req.TimeLimit)
	total := req.Work.GetVideoDuration().AsDuration()

	run.stdout = &progressParser{onBlock: func(p Progress, end bool) {
		run.beat() // that the index is moved to the front has no time of its own
		p.tell(req.OnProgress, total, end)
	}}

	end, err := run.run(ctx)
	if err != nil {
		return end.log, endFault(err, end.log)
	}

	if err := transferFault(source, end.log); err != nil {
		return end.log, err
	}

	if end.code != 0 {
		return end.log, exitFault(end, func(log string) *Fault {
			return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, log, "FFmpeg could not put the segments together")
		})
	}

	return end.log, nil
}

// checkAssembled compares a file with the segments that it was made of.
func checkAssembled(work *tcoderv1.AssembleWork, made reading) error {
	const rounding = time.Millisecond

	if got := made.rendition.GetResult().GetFrameCount(); got != work.GetFrameCount() {
		return fmt.Errorf("%w: %d frames, the segments have %d", errResult, got, work.GetFrameCount())
	}

	if off := (made.picture - work.GetVideoDuration().AsDuration()).Abs(); off > rounding {
		return fmt.Errorf("%w: the picture lasts %s, its segments %s", errResult, made.picture, work.GetVideoDuration().AsDuration())
	}

	if off := (made.sound - work.GetAudioDuration().AsDuration()).Abs(); off > rounding {
		return fmt.Errorf("%w: the sound lasts %s, its segments %s", errResult, made.sound, work.GetAudioDuration().AsDuration())
	}

	return nil
}
