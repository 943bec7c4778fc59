package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
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
}

// How the fake works. An attempt's length and end depend on the seed and the
// attempt alone.
const (
	fakeShortest = 30 * time.Millisecond
	fakeLongest  = 500 * time.Millisecond
	fakeSteps    = 5 // of progress
	// Only early attempts fail, so that every task succeeds in the end.
	fakeFailing = 2
	fakeUnknown = 0.12 // of those: delayed and charged
	fakeMachine = 0.04 // of those: ready again at once
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
	hash := fnv.New64a()
	fmt.Fprintln(hash, lease.GetTaskId(), lease.GetAttempt())
	chance := rand.New(rand.NewPCG(f.Seed, hash.Sum64()))
	length := fakeShortest + time.Duration(chance.Int64N(int64(fakeLongest-fakeShortest)))
	fate := chance.Float64()
	for step := range fakeSteps {
		select {
		case <-time.After(length / fakeSteps):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		a.Progress(&tcoderv1.TaskProgress{Lease: lease, Fraction: float64(step+1) / fakeSteps, Speed: 1})
	}
	if !f.Reliable && lease.GetAttempt() <= fakeFailing {
		switch {
		case fate < fakeUnknown:
			return nil, errors.New("a fake failure")
		case fate < fakeUnknown+fakeMachine:
			return nil, &ffmpeg.Fault{
				Class: tcoderv1.FaultClass_FAULT_CLASS_MACHINE, Reason: tcoderv1.ErrorReason_ERROR_REASON_INTERNAL, Message: "A fake fault.",
			}
		}
	}
	switch work := a.Assignment.GetWork().(type) {
	case *tcoderv1.Assignment_Probe:
		seconds := time.Duration(a.Assignment.GetSourceSizeBytes()/bytesASecond) * time.Second

		return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Probe{Probe: fakeProbe(seconds)}}, nil
	case *tcoderv1.Assignment_Encode:
		result := fakeResult(work.Encode)

		return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Encode{Encode: result}}, upload(ctx, a, result)
	default:
		return nil, fmt.Errorf("the fake worker can't do a %s", a.Assignment.GetKind())
	}
}

// upload sends the objects of a result by the requests that the control plane signs.
func upload(ctx context.Context, a worker.Attempt, result *tcoderv1.EncodeResult) error {
	var objects []*tcoderv1.EncodedObject
	for _, r := range result.GetRenditions() {
		if r.GetFile() != nil {
			objects = append(objects, r.GetFile())
		} else {
			objects = append(append(objects, r.GetInitSegment()), r.GetSegments()...)
		}
	}
	requests, err := a.Sign(ctx, objects)
	if err != nil {
		return err
	}
	for i, request := range requests {
		for try := 1; ; try++ {
			err := put(ctx, request, int(objects[i].GetSizeBytes()))
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

func put(ctx context.Context, signed *tcoderv1.SignedRequest, size int) error {
	request, err := http.NewRequestWithContext(ctx, signed.GetMethod(), signed.GetUrl(), bytes.NewReader(bytes.Repeat([]byte("."), size)))
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
	defer response.Body.Close() //nolint:errcheck // nothing of it is read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the store answers a PUT with %s", response.Status)
	}

	return nil
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
func fakeResult(work *tcoderv1.EncodeWork) *tcoderv1.EncodeResult {
	output := work.GetOutput()
	length := work.GetDuration().AsDuration()
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
