package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// crew are workers of this process: the product's, but for FFmpeg.
type crew struct {
	workers []*worker.Worker
	running *errgroup.Group
	cancel  context.CancelFunc
}

// startCrew starts so many workers that attach to a control plane, each by a
// connection of its own. One may begin every pause.
func startCrew(ctx context.Context, s setting, server string, n, slots int, pause time.Duration, execute worker.Executor) (*crew, error) {
	dir, err := os.MkdirTemp(s.work, "crew-")
	if err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}
	c := &crew{}
	for i := range n {
		w, err := worker.New(worker.Config{
			Servers: []string{server}, Slots: slots, Version: "bench", Execute: execute, Logger: slog.New(slog.DiscardHandler),
			// Workers that share a folder look for what dead ones left in it.
			ScratchDir: filepath.Join(dir, strconv.Itoa(i)), Encoders: []tcoderv1.VideoCodec{tcoderv1.VideoCodec_VIDEO_CODEC_H264},
		})
		if err != nil {
			return nil, err
		}
		c.workers = append(c.workers, w)
	}
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.running, ctx = errgroup.WithContext(ctx)
	c.running.Go(func() error {
		for _, w := range c.workers {
			c.running.Go(func() error { return w.Run(ctx) })
			if pause > 0 {
				wait(ctx, pause)
			}
		}

		return nil
	})

	return c, nil
}

// stop lets all workers leave.
func (c *crew) stop() error {
	for _, w := range c.workers {
		w.Drain()
	}
	err := c.running.Wait()
	c.cancel()

	return err
}

// kill ends all workers at once.
func (c *crew) kill() {
	c.cancel()
	_ = c.running.Wait() // what they say is that they were ended
}

// wait lets time pass, unless ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// until asks every few milliseconds until f says yes; an error if it doesn't in time.
func until(ctx context.Context, within time.Duration, what string, f func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, errors.New("invalid: "+what+" takes too long"))
	defer cancel()
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait(ctx, 20*time.Millisecond)
	}
}

// refuse ends a task, and its job, by the source's fault.
func refuse() (*tcoderv1.TaskReport, error) {
	return nil, &ffmpeg.Fault{
		Class: tcoderv1.FaultClass_FAULT_CLASS_INPUT, Reason: tcoderv1.ErrorReason_ERROR_REASON_INPUT_CORRUPT, Message: "It is but a benchmark's.",
	}
}

const (
	fakeSeconds = 10 // of the source
	fakeRate    = 25
	fakeBytes   = 600 // of each object
)

// fakeEncode makes what a plan asks for, files all of them, in an encoder's
// time and with its progress.
func fakeEncode(ctx context.Context, a worker.Attempt, lasts time.Duration) (*tcoderv1.TaskReport, error) {
	const every = 100 * time.Millisecond
	for elapsed := time.Duration(0); elapsed < lasts; elapsed += every {
		wait(ctx, every)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		a.Progress(&tcoderv1.TaskProgress{
			Lease: a.Assignment.GetLease(), Fraction: float64(elapsed+every) / float64(lasts), Speed: 1, Fps: fakeRate,
			MediaTime: durationpb.New(elapsed + every),
		})
	}
	work := a.Assignment.GetEncode()
	output := work.GetOutput()
	result := &tcoderv1.EncodeResult{}
	var objects []*tcoderv1.EncodedObject
	for _, plan := range output.GetVideo().GetRenditions() {
		object := &tcoderv1.EncodedObject{Name: plan.GetName() + ".mp4", SizeBytes: fakeBytes, ContentType: "video/mp4"}
		objects = append(objects, object)
		result.Renditions = append(result.Renditions, &tcoderv1.EncodedRendition{
			Result: &tcoderv1.RenditionResult{
				Name: plan.GetName(), Codecs: "avc1.64001f", Width: plan.GetWidth(), Height: plan.GetHeight(), Copied: plan.GetCopy(),
				FrameRate: output.GetVideo().GetFrameRate(), FrameCount: fakeSeconds * fakeRate, Duration: work.GetDuration(), SizeBytes: fakeBytes,
			},
			File: object,
		})
	}
	requests, err := a.Sign(ctx, objects)
	if err != nil {
		return nil, err
	}
	for _, request := range requests {
		if err := put(ctx, request); err != nil {
			return nil, err
		}
	}

	return &tcoderv1.TaskReport{End: &tcoderv1.TaskReport_Encode{Encode: result}}, nil
}

// put uploads an object by the request that was signed for it.
func put(ctx context.Context, signed *tcoderv1.SignedRequest) error {
	body := bytes.NewReader(bytes.Repeat([]byte("."), fakeBytes))
	request, err := http.NewRequestWithContext(ctx, signed.GetMethod(), signed.GetUrl(), body)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	for name, value := range signed.GetHeaders() {
		request.Header.Set(name, value)
	}
	response, err := (&http.Client{}).Do(request)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
		return errors.Join(err, errors.New("upload: "+response.Status))
	}

	return nil
}
