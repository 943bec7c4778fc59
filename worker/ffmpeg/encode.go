package ffmpeg

import (
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Source is where FFmpeg reads from.
type Source struct {
	// URL is an http URL on a loopback address that answers range requests.
	URL string
	// SizeBytes is the size of the source.
	SizeBytes int64
	// TransferError returns the error that kept URL from serving the true
	// bytes, nil if there was none. FFmpeg takes a broken transfer for the end
	// of the file, so it is asked before any blame goes to the input and before
	// a result is believed. A *Fault is returned as it is (INPUT_MISSING for a
	// source that is gone), any other error as TRANSFER_FAILED of class UNKNOWN.
	// A nil func means that transfers never fail.
	TransferError func() error
}

// port is that of the URL, the only one that FFmpeg may connect to; 0 if it
// has none.
func (s Source) port() uint16 {
	address, err := url.Parse(s.URL)
	if err != nil {
		return 0
	}

	port, err := strconv.ParseUint(address.Port(), 10, 16)
	if err != nil {
		return 0
	}

	return uint16(port)
}

// EncodeRequest is one encode.
type EncodeRequest struct {
	// Source is what is encoded.
	Source Source
	// Work is what to make.
	Work *tcoderv1.EncodeWork
	// Dir is an existing, empty folder for the results.
	Dir string
	// TimeLimit bounds the wall time; 0 means no bound.
	TimeLimit time.Duration
	// OnProgress is called about twice a second, from one goroutine at a time
	// and never after Encode has returned. It should not block. Nil means not
	// at all.
	OnProgress func(Progress)
	// OnSegments is told of HLS segments as soon as they are finished, in order,
	// from one goroutine at a time and never after Encode has returned. It may
	// remove them at any time. Nil means not at all.
	OnSegments func([]Segments)
	// Brake may stop FFmpeg and continue it, while the caller can't take more.
	// Progress is told meanwhile, slower and slower. Nil means not at all.
	Brake *Brake
}

// Encode makes one output in req.Dir and returns what it really made: the
// video renditions, largest first, then the audio rendition of HLS. Names of
// objects are their paths below Dir: `720p/init.mp4`, `720p/00000.m4s`,
// `audio/00000.m4s`, `720p.mp4`, `audio.m4a`. Other files in Dir are not part
// of the result.
//
// A file for which picture or sound is copied is made again, of what a decoder
// makes of the source, if that shows to be damaged on the way.
//
// FFmpeg's process group is dead when it returns. On cancel of ctx it returns
// ctx's error, within twice KillGrace.
func Encode(ctx context.Context, tools Tools, req EncodeRequest) ([]*tcoderv1.EncodedRendition, error) {
	made, found, err := makeOutput(ctx, tools, req)
	isFile := req.Work.GetOutput().GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_MP4

	if found.any() && isFile {
		for _, name := range fileNames(req.Work.GetOutput()) {
			if err := os.Remove(filepath.Join(req.Dir, name)); err != nil {
				return nil, machineFault(err.Error(), "the worker's disk can't be written")
			}
		}

		req.Work = uncopied(req.Work)
		made, _, err = makeOutput(ctx, tools, req)
	}

	for _, rendition := range made {
		result := rendition.GetResult()

		switch {
		case isFile:
			result.SourceDamaged = found.any()
		case result.GetCopied() && result.GetHeight() > 0:
			result.SourceDamaged = found.picture
		case result.GetCopied():
			result.SourceDamaged = found.sound
		}
	}

	return made, err
}

// uncopied is a work with nothing copied.
func uncopied(work *tcoderv1.EncodeWork) *tcoderv1.EncodeWork {
	work = proto.CloneOf(work)
	for _, rendition := range work.GetOutput().GetVideo().GetRenditions() {
		rendition.Copy = false
	}

	if audio := work.GetOutput().GetAudio(); audio != nil {
		audio.Copy = false
	}

	return work
}

// makeOutput is Encode once, and tells what damage of the source copies have.
func makeOutput(ctx context.Context, tools Tools, req EncodeRequest) ([]*tcoderv1.EncodedRendition, hurt, error) {
	args, err := EncodeArgs(req.Work, req.Source.URL, tools)
	if err != nil {
		return nil, hurt{}, unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, err.Error(), "the plan can't be carried out by this worker")
	}

	for _, name := range hlsFolders(req.Work.GetOutput()) {
		if err := os.Mkdir(filepath.Join(req.Dir, name), 0o700); err != nil {
			return nil, hurt{}, machineFault(err.Error(), "the worker's disk can't be written")
		}
	}

	made := newRecorder(req.Work, req.Dir)
	tell := made.teller(req.OnSegments)

	watch := &copyWatch{work: req.Work}

	log, err := encode(ctx, tools.withDefaults(), req, args, tell, watch)
	if err != nil {
		return nil, hurt{}, err
	}

	if err := transferFault(req.Source, log); err != nil {
		return nil, hurt{}, err
	}

	tell()

	renditions, err := measure(req.Work, req.Dir, made)

	if fault, ok := errors.AsType[*Fault](err); ok {
		fault.Log += "\n" + log
	}

	return renditions, watch.found, err
}

// encode runs FFmpeg and returns the end of its standard error, all of which
// watch gets.
func encode(ctx context.Context, tools Tools, req EncodeRequest, args []string, tell func(), watch io.Writer) (string, error) {
	var folders []string
	for _, name := range hlsFolders(req.Work.GetOutput()) {
		folders = append(folders, filepath.Join(req.Dir, name))
	}

	// Where there are too many watches, progress is the time to look.
	if len(folders) > 0 {
		if stop, err := watchRenames(folders, tell); err == nil {
			defer stop()
		}
	}

	run := tools.maker(req.Source, req.Dir, args, req.TimeLimit)
	pace := &pace{req: req, start: time.Now()}

	run.stdout = &progressParser{onBlock: func(p Progress, end bool) {
		if pace.advance(p, end) {
			run.beat()
		}

		tell()
	}}
	run.stderr, run.brake, run.onHeld, run.hurry = watch, req.Brake, pace.slow, opens(req.Work)

	end, err := run.run(ctx)
	if err != nil {
		return end.log, endFault(err, end.log)
	}

	if end.code != 0 {
		if err := transferFault(req.Source, end.log); err != nil {
			return end.log, err
		}

		return end.log, exitFault(end, func(log string) *Fault {
			return unknownFault(tcoderv1.ErrorReason_ERROR_REASON_ENCODE_FAILED, log, "FFmpeg failed on this source")
		})
	}

	return end.log, nil
}

// pace tells the progress of an encode, also while that is stopped.
type pace struct {
	req   EncodeRequest
	start time.Time

	mu   sync.Mutex
	last Progress // as FFmpeg told it
}

// advance takes in what FFmpeg tells, and reports whether it got further.
func (t *pace) advance(p Progress, end bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()

	further := p.OutTime != t.last.OutTime
	t.last = p
	t.tell(p, end)

	return further
}

// slow tells again what FFmpeg told last, at the speed that is left of it.
func (t *pace) slow() {
	t.mu.Lock()
	defer t.mu.Unlock()

	p, spent := t.last, time.Since(t.start).Seconds()
	p.Speed, p.FPS = min(p.Speed, p.OutTime.Seconds()/spent), min(p.FPS, float64(p.Frame)/spent)
	t.tell(p, false)
}

func (t *pace) tell(p Progress, end bool) {
	if chunk := chunkOf(t.req.Work); chunk != nil {
		p.OutTime = max(0, p.OutTime-frameTime(t.req.Work, chunk.GetFirstFrame()))
	}

	p.tell(t.req.OnProgress, length(t.req.Work), end)
}

// hlsFolders are the folders of an output's renditions; none for MP4.
func hlsFolders(output *tcoderv1.OutputPlan) []string {
	if output.GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_HLS {
		return nil
	}

	var names []string
	for _, rendition := range output.GetVideo().GetRenditions() {
		names = append(names, rendition.GetName())
	}

	if output.GetAudio() != nil {
		names = append(names, output.GetAudio().GetName())
	}

	return names
}

// fileNames are the files of an MP4 output.
func fileNames(output *tcoderv1.OutputPlan) []string {
	if output.GetVideo() == nil {
		return []string{output.GetAudio().GetName() + ".m4a"}
	}

	var names []string
	for _, rendition := range output.GetVideo().GetRenditions() {
		names = append(names, rendition.GetName()+".mp4")
	}

	return names
}

// The MIME types of results.
const (
	typeVideo   = "video/mp4"
	typeAudio   = "audio/mp4"
	typeSegment = "video/iso.segment"
)
