package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// engine runs tasks as a worker does, without a worker.
type engine struct {
	stack *stack // it plans
	tools ffmpeg.Tools
	dir   string
}

func startEngine(ctx context.Context, s setting) (*engine, error) {
	tools, err := ffmpeg.Find()
	if err != nil {
		return nil, err
	}
	tools, err = tools.Inspect(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask FFmpeg what it can do: %w", err)
	}
	dir, err := os.MkdirTemp(s.work, "engine-")
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}
	st, err := startStack(ctx, s, "--pool-limit", "2") // a single slot would get no chunks

	return &engine{stack: st, tools: tools, dir: dir}, err
}

// picture is the work that the product plans for a clip, without its sound, and
// not in chunks.
func (e *engine) picture(ctx context.Context, clip string, spec *tcoderv1.JobSpec) (*tcoderv1.EncodeWork, error) {
	job, err := e.planned(ctx, clip, spec)
	if err != nil {
		return nil, err
	}

	return pictureOf(job, job.GetPlan().GetOutputs()[0]), nil
}

// chunked is the ladder that the product plans for the segments of files, whole
// and in chunks. Those of a stream would be made from its second segment on:
// its first is made twice, so that a player can start soon.
func (e *engine) chunked(ctx context.Context, clip string, qualities []string) (whole *tcoderv1.EncodeWork, chunks []*tcoderv1.EncodeWork, err error) {
	job, err := e.planned(ctx, clip, &tcoderv1.JobSpec{Qualities: qualities, Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER, Outputs: []*tcoderv1.OutputSpec{
		{Name: "files", Kind: tcoderv1.OutputKind_OUTPUT_KIND_MP4},
	}})
	if err != nil {
		return nil, nil, err
	}
	for _, o := range job.GetPlan().GetOutputs() {
		for _, c := range o.GetChunks() {
			whole = pictureOf(job, o)
			part := pictureOf(job, o)
			part.Output.Chunks = []*tcoderv1.Chunk{c}
			chunks = append(chunks, part)
		}
	}
	if len(chunks) < 2 {
		return nil, nil, fmt.Errorf("invalid: %s isn't made in chunks", filepath.Base(clip))
	}

	return whole, chunks, nil
}

// planned is a job for a clip that has its plan.
func (e *engine) planned(ctx context.Context, clip string, spec *tcoderv1.JobSpec) (*tcoderv1.Job, error) {
	job, err := e.stack.follow(ctx, clip, spec, func(j *tcoderv1.Job) bool { return j.GetPlan() != nil || j.GetFailure() != nil })
	if err != nil {
		return nil, err
	}
	if job.GetPlan() == nil {
		return nil, fmt.Errorf("%s: %s", filepath.Base(clip), job.GetFailure().GetMessage())
	}

	return job, nil
}

func pictureOf(job *tcoderv1.Job, output *tcoderv1.OutputPlan) *tcoderv1.EncodeWork {
	work := &tcoderv1.EncodeWork{Output: proto.CloneOf(output), Source: job.GetProbe(), Duration: job.GetPlan().GetDuration()}
	work.Output.Audio, work.Output.Chunks = nil, nil

	return work
}

// inSegments takes a work apart into chunks of one segment; what is less than
// half of one at the end belongs to the chunk before.
func inSegments(work *tcoderv1.EncodeWork) []*tcoderv1.EncodeWork {
	video := work.GetOutput().GetVideo()
	gop := uint64(video.GetGopFrames())
	fps := float64(video.GetFrameRate().GetNum()) / float64(video.GetFrameRate().GetDen())
	length := gop * max(1, uint64(work.GetOutput().GetSegmentSeconds()*fps/float64(gop)+0.5))
	var parts []*tcoderv1.EncodeWork
	last := video.GetExpectedFrames()
	for first := uint64(0); first < last; {
		end := first + length
		if end+length/2 > last {
			end = last
		}
		part := proto.CloneOf(work)
		part.Output.Chunks = []*tcoderv1.Chunk{{FirstFrame: first, EndFrame: end}}
		parts = append(parts, part)
		first = end
	}

	return parts
}

// made is what came of a work.
type made struct {
	dir        string
	renditions []*tcoderv1.EncodedRendition
}

// encode does works one after the other, each with so many threads (0: as many
// as FFmpeg likes), and tells what they took.
func (e *engine) encode(ctx context.Context, clip string, threads int, works ...*tcoderv1.EncodeWork) (_ []made, _ cost, err error) {
	source, stop, err := serveFile(ctx, clip)
	if err != nil {
		return nil, cost{}, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	tools := e.tools
	tools.Threads = threads
	var results []made
	start := time.Now()
	before, err := usedCPU(syscall.RUSAGE_CHILDREN)
	if err != nil {
		return nil, cost{}, err
	}
	for _, work := range works {
		dir, err := os.MkdirTemp(e.dir, "task-")
		if err != nil {
			return nil, cost{}, fmt.Errorf("scratch folder: %w", err)
		}
		renditions, err := ffmpeg.Encode(ctx, tools, ffmpeg.EncodeRequest{Source: source, Work: work, Dir: dir})
		if err != nil {
			return nil, cost{}, fmt.Errorf("%s: %w", filepath.Base(clip), err)
		}
		results = append(results, made{dir, renditions})
	}

	after, err := usedCPU(syscall.RUSAGE_CHILDREN)

	return results, cost{wall: time.Since(start), cpu: after - before}, err
}

// joined writes the first rendition of consecutive works as one file.
func joined(path string, works []made) error {
	data, err := os.ReadFile(filepath.Join(works[0].dir, works[0].renditions[0].GetInitSegment().GetName()))
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	for _, m := range works {
		for _, object := range m.renditions[0].GetSegments() {
			segment, err := os.ReadFile(filepath.Join(m.dir, object.GetName()))
			if err != nil {
				return fmt.Errorf("join: %w", err)
			}
			data = append(data, segment...)
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("join: %w", err)
	}

	return nil
}

func (e *engine) stop() error { return e.stack.stop() }

// serveFile gives a file as workers give it to FFmpeg: on loopback, by ranges.
func serveFile(ctx context.Context, path string) (ffmpeg.Source, func() error, error) {
	info, err := os.Stat(path)
	if err != nil {
		return ffmpeg.Source{}, nil, fmt.Errorf("source: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return ffmpeg.Source{}, nil, fmt.Errorf("source: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })}
	go func() { _ = server.Serve(listener) }() // it ends when it is closed

	return ffmpeg.Source{URL: "http://" + listener.Addr().String() + "/source", SizeBytes: info.Size()}, server.Close, nil
}
