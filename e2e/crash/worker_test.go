package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// fakeWorkerEnv makes this test binary a worker process: the product's, but
// for FFmpeg.
const fakeWorkerEnv = "TCODER_CRASH_WORKER"

// fakeWorker is the value of fakeWorkerEnv, as JSON.
type fakeWorker struct {
	Servers   []string         `json:"servers"`
	ID        string           `json:"id"`
	Transport worker.Transport `json:"transport"`
	Slots     int              `json:"slots"`
	Scratch   string           `json:"scratch"`
	// Seed makes work last as long and fail as often in each run.
	Seed uint64 `json:"seed"`
	// Reliable lets no attempt fail.
	Reliable bool `json:"reliable"`
	// Gate is asked before an attempt ends well.
	Gate string `json:"gate"`
}

// How the fake works. An attempt's length and end depend on the seed and the
// attempt alone.
const (
	fakeShortest = 50 * time.Millisecond
	fakeLongest  = 500 * time.Millisecond
	fakeSteps    = 5 // of progress
	// Only early attempts fail, so that every task succeeds in the end.
	fakeFailing = 2
	fakeUnlucky = 0.15 // of tasks: those attempts fail, delayed for a while and charged
	fakeMachine = 0.04 // of early attempts: they fail, ready again at once
	fakeRate    = 24   // frames per second
	fakeObject  = 600  // bytes
	// bytesASecond is how long a source is, by its size.
	bytesASecond = 100
	putTries     = 5
)

// run is the life of the worker process.
func (f fakeWorker) run() error {
	w, err := worker.New(worker.Config{
		Servers: f.Servers, WorkerID: f.ID, Transport: f.Transport, Slots: f.Slots, ScratchDir: f.Scratch, Version: "fake",
		Encoders: []tcoderv1.VideoCodec{tcoderv1.VideoCodec_VIDEO_CODEC_H264},
		Execute:  f.execute, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, w.Drain)()

	return w.Run(context.WithoutCancel(ctx))
}

func runFakeWorker(config string) error {
	var f fakeWorker
	if err := json.Unmarshal([]byte(config), &f); err != nil {
		return fmt.Errorf("%s: %w", fakeWorkerEnv, err)
	}

	return f.run()
}

// execute takes real time, and makes results that look like what the plan
// asks for.
func (f fakeWorker) execute(ctx context.Context, a worker.Attempt) (*tcoderv1.TaskReport, error) {
	lease := a.Assignment.GetLease()
	task := f.chance(lease.GetTaskId())
	chance := f.chance(lease.GetTaskId(), lease.GetAttempt())
	length := fakeShortest + time.Duration(chance.Int64N(int64(fakeLongest-fakeShortest)))
	early := !f.Reliable && lease.GetAttempt() <= fakeFailing
	unlucky, machine := early && task.Float64() < fakeUnlucky, early && chance.Float64() < fakeMachine
	if unlucky {
		length = fakeShortest
	}

	report := &tcoderv1.TaskReport{}
	var objects []*tcoderv1.EncodedObject
	var requests []*tcoderv1.SignedRequest
	switch work := a.Assignment.GetWork().(type) {
	case *tcoderv1.Assignment_Probe:
		seconds := time.Duration(a.Assignment.GetSourceSizeBytes()/bytesASecond) * time.Second
		report.End = &tcoderv1.TaskReport_Probe{Probe: fakeProbe(seconds)}
	case *tcoderv1.Assignment_Encode:
		objects = fakeWork(report, work.Encode.GetOutput(), work.Encode.GetDuration().AsDuration())
	case *tcoderv1.Assignment_Assemble:
		if err := readPieces(ctx, a, slices.Concat(work.Assemble.GetVideo(), work.Assemble.GetAudio())); err != nil {
			return nil, err
		}
		objects = fakeWork(report, work.Assemble.GetOutput(), work.Assemble.GetVideoDuration().AsDuration())
	default:
		return nil, fmt.Errorf("the fake worker can't do a %s", a.Assignment.GetKind())
	}
	if len(objects) > 0 {
		// Before the work: what is left can then be done while nobody answers.
		var err error
		if requests, err = a.Sign(ctx, objects); err != nil {
			return nil, err
		}
	}

	for step := range fakeSteps {
		select {
		case <-time.After(length / fakeSteps):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		a.Progress(&tcoderv1.TaskProgress{Lease: lease, Fraction: float64(step+1) / fakeSteps, Speed: 1})
	}

	switch {
	case unlucky:
		return nil, errors.New("a fake failure")
	case machine:
		return nil, &ffmpeg.Fault{
			Class: tcoderv1.FaultClass_FAULT_CLASS_MACHINE, Reason: tcoderv1.ErrorReason_ERROR_REASON_INTERNAL, Message: "A fake fault.",
		}
	}
	if err := upload(ctx, objects, requests); err != nil {
		return nil, err
	}

	return report, f.ask(ctx, lease)
}

// ask returns when the attempt may end.
func (f fakeWorker) ask(ctx context.Context, lease *tcoderv1.LeaseRef) error {
	url := fmt.Sprintf("%s/%s/%s/%d", f.Gate, f.ID, lease.GetTaskId(), lease.GetAttempt())

	return send(ctx, &tcoderv1.SignedRequest{Method: http.MethodGet, Url: url}, nil, 0)
}

// chance is the same for the same words in each run.
func (f fakeWorker) chance(words ...any) *rand.Rand {
	hash := fnv.New64a()
	fmt.Fprintln(hash, words...)

	return rand.New(rand.NewPCG(f.Seed, hash.Sum64()))
}

// fakeWork writes the end of an encode into a report, and returns the objects that it is to upload.
func fakeWork(report *tcoderv1.TaskReport, output *tcoderv1.OutputPlan, length time.Duration) []*tcoderv1.EncodedObject {
	result := fakeResult(output, length)
	report.End = &tcoderv1.TaskReport_Encode{Encode: result}
	var objects []*tcoderv1.EncodedObject
	for _, r := range result.GetRenditions() {
		if r.GetFile() != nil {
			objects = append(objects, r.GetFile())
		} else {
			objects = append(append(objects, r.GetInitSegment()), r.GetSegments()...)
		}
	}

	return objects
}

// readPieces requires that what a file is put together of is there.
func readPieces(ctx context.Context, a worker.Attempt, pieces []*tcoderv1.Piece) error {
	objects := make([]*tcoderv1.EncodedObject, len(pieces))
	for i, piece := range pieces {
		objects[i] = &tcoderv1.EncodedObject{Name: piece.GetName(), SizeBytes: piece.GetSizeBytes()}
	}
	requests, err := a.SignRead(ctx, objects)
	if err != nil {
		return err
	}
	for i, request := range requests {
		if err := send(ctx, request, nil, int64(objects[i].GetSizeBytes())); err != nil {
			return err
		}
	}

	return nil
}

// upload sends objects by the requests that the control plane signed.
func upload(ctx context.Context, objects []*tcoderv1.EncodedObject, requests []*tcoderv1.SignedRequest) error {
	for i, request := range requests {
		for try := 1; ; try++ {
			err := send(ctx, request, bytes.Repeat([]byte("."), int(objects[i].GetSizeBytes())), 0)
			if err == nil {
				break
			}
			if try == putTries || ctx.Err() != nil {
				return err
			}
		}
	}

	return nil
}

// send sends a signed request, whose answer has so many bytes.
func send(ctx context.Context, signed *tcoderv1.SignedRequest, body []byte, answer int64) error {
	request, err := http.NewRequestWithContext(ctx, signed.GetMethod(), signed.GetUrl(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, value := range signed.GetHeaders() {
		request.Header.Set(name, value)
	}
	response, err := store.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // what of it matters is read
	got, err := io.Copy(io.Discard, response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || got != answer) {
		err = fmt.Errorf("the store answers a %s with %s and %d bytes", signed.GetMethod(), response.Status, got)
	}

	return err
}

// store is the worker's client of the object store.
var store = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}} //nolint:gochecknoglobals // of a process that lives for one worker

func fakeProbe(length time.Duration) *tcoderv1.ProbeResult {
	rate := &tcoderv1.Rational{Num: fakeRate, Den: 1}

	return &tcoderv1.ProbeResult{
		Format: "mov,mp4,m4a,3gp,3g2,mj2", Duration: durationpb.New(length),
		Streams: []*tcoderv1.StreamInfo{
			{
				Index: 0, Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, Codec: "h264", Width: 426, Height: 240,
				FrameRate: rate, NominalFrameRate: rate, PixelFormat: "yuv420p", Duration: durationpb.New(length),
			},
			{
				Index: 1, Kind: tcoderv1.StreamKind_STREAM_KIND_AUDIO, Codec: "aac", SampleRateHz: 48000, Channels: 2,
				Duration: durationpb.New(length),
			},
		},
	}
}

// fakeResult is what the planned output looks like when it is made.
func fakeResult(output *tcoderv1.OutputPlan, length time.Duration) *tcoderv1.EncodeResult {
	frames := uint64(math.Round(length.Seconds() * fakeRate))

	if chunks := output.GetChunks(); len(chunks) > 0 {
		frames = chunks[0].GetEndFrame() - chunks[0].GetFirstFrame()
		length = time.Duration(float64(frames) / fakeRate * float64(time.Second))
	}

	result := &tcoderv1.EncodeResult{}

	for _, plan := range output.GetVideo().GetRenditions() {
		result.Renditions = append(result.Renditions, fakeRendition(output, &tcoderv1.RenditionResult{
			Name: plan.GetName(), Codecs: "avc1.64001f", Width: plan.GetWidth(), Height: plan.GetHeight(), Copied: plan.GetCopy(),
			FrameRate: output.GetVideo().GetFrameRate(), FrameCount: frames, Duration: durationpb.New(length),
		}))
	}

	hls := output.GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS
	if audio := output.GetAudio(); audio != nil && (hls || output.GetVideo() == nil) {
		result.Renditions = append(result.Renditions, fakeRendition(output, &tcoderv1.RenditionResult{
			Name: audio.GetName(), Codecs: "mp4a.40.2", Duration: durationpb.New(length),
		}))
	}

	return result
}

func fakeRendition(output *tcoderv1.OutputPlan, result *tcoderv1.RenditionResult) *tcoderv1.EncodedRendition {
	rendition := &tcoderv1.EncodedRendition{Result: result}
	object := func(name, contentType string) *tcoderv1.EncodedObject {
		result.SizeBytes += fakeObject

		return &tcoderv1.EncodedObject{Name: name, SizeBytes: fakeObject, ContentType: contentType}
	}

	if output.GetKind() != tcoderv1.OutputKind_OUTPUT_KIND_HLS {
		rendition.File = object(result.GetName()+".mp4", "video/mp4")

		return rendition
	}

	segment := time.Duration(output.GetSegmentSeconds() * float64(time.Second))
	rendition.InitSegment = object(result.GetName()+"/init.mp4", "video/mp4")

	for left := result.GetDuration().AsDuration(); left > 0; left -= segment {
		next := object(fmt.Sprintf("%s/%05d.m4s", result.GetName(), len(rendition.GetSegments())), "video/mp4")
		next.Duration = durationpb.New(min(left, segment))
		rendition.Segments = append(rendition.Segments, next)
	}

	return rendition
}
