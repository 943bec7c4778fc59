package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The settings of the preset hls-adaptive, written by hand: capped CRF 23,
// veryfast, GOPs of 2 s and segments of 4 s at 24 frames per second.
const (
	gopFrames      = 48
	segmentSeconds = 4
)

type rung struct {
	name   string
	height int
	cap    int // bits per second
}

func ladder() []rung {
	return []rung{{"1080p", 1080, 5_000_000}, {"720p", 720, 2_800_000}, {"480p", 480, 1_400_000}, {"360p", 360, 800_000}}
}

// transcoding compares hls-adaptive through the whole product with the best
// single FFmpeg command and with one FFmpeg per rendition, on the same 1080p
// clip, with the same codec settings.
func transcoding(ctx context.Context, s setting) (_ []Result, err error) {
	clip := filepath.Join(s.media, "mix1080.mp4")
	if _, err := os.Stat(clip); err != nil {
		return nil, fmt.Errorf("the bench clip is missing: %w", err)
	}
	stack, err := startStack(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stack.stop()) }()

	var product, single, separate []cost
	for round := range s.rounds {
		fmt.Fprintf(os.Stderr, "pipeline: round %d of %d\n", round+1, s.rounds)
		for _, contender := range []struct {
			costs *[]cost
			run   func(context.Context, string, string) (cost, error)
		}{{&product, stack.transcode}, {&single, singleCommand}, {&separate, commandPerRendition}} {
			dir, err := os.MkdirTemp(s.work, "run-")
			if err != nil {
				return nil, fmt.Errorf("scratch folder: %w", err)
			}
			got, err := contender.run(ctx, clip, dir)
			if err != nil {
				return nil, err
			}
			*contender.costs = append(*contender.costs, got)
			if err := os.RemoveAll(dir); err != nil {
				return nil, fmt.Errorf("scratch folder: %w", err)
			}
		}
	}

	return compare(product, single, separate), nil
}

func compare(product, single, separate []cost) []Result {
	wall := func(c cost) float64 { return c.wall.Seconds() }
	cpu := func(c cost) float64 { return c.cpu.Seconds() }
	figures := func(costs []cost, of func(cost) float64) []float64 {
		got := make([]float64, len(costs))
		for i, c := range costs {
			got[i] = of(c)
		}

		return got
	}
	ratio := func(peers []cost, of func(cost) float64) float64 {
		ratios := make([]float64, len(peers))
		for i := range peers {
			ratios[i] = of(product[i]) / of(peers[i])
		}

		return median(ratios)
	}
	const one, each = "one hand-written FFmpeg command", "one FFmpeg per rendition"

	return []Result{
		{Name: "pipeline/wall", Value: median(figures(product, wall)), Unit: "s", OK: true},
		{Name: "pipeline/cpu", Value: median(figures(product, cpu)), Unit: "s", OK: true},
		{Name: "pipeline/single/wall", Value: median(figures(single, wall)), Unit: "s", OK: true},
		{Name: "pipeline/single/cpu", Value: median(figures(single, cpu)), Unit: "s", OK: true},
		{Name: "pipeline/wall-ratio-single", Value: ratio(single, wall), Unit: "ratio", Peer: one, OK: true},
		{Name: "pipeline/cpu-ratio-single", Value: ratio(single, cpu), Unit: "ratio", Peer: one, OK: true},
		{Name: "pipeline/wall-ratio-separate", Value: ratio(separate, wall), Unit: "ratio", Peer: each, OK: true},
		{Name: "pipeline/cpu-ratio-separate", Value: ratio(separate, cpu), Unit: "ratio", Peer: each, OK: true},
	}
}

// encoderArgs sets the encoder of the i-th video stream of an output.
func encoderArgs(i int, r rung) []string {
	of := ":v:" + strconv.Itoa(i)

	return []string{
		"-c" + of, "libx264", "-preset" + of, "veryfast", "-profile" + of, "high", "-pix_fmt" + of, "yuv420p",
		"-crf" + of, "23", "-maxrate" + of, strconv.Itoa(r.cap), "-bufsize" + of, strconv.Itoa(r.cap * 3 / 2),
		"-g" + of, strconv.Itoa(gopFrames), "-keyint_min" + of, strconv.Itoa(gopFrames), "-sc_threshold" + of, "0",
	}
}

func hlsArgs(dir string) []string {
	return []string{
		"-f", "hls", "-hls_time", strconv.Itoa(segmentSeconds), "-hls_playlist_type", "vod", "-hls_flags", "independent_segments",
		"-hls_segment_type", "fmp4", "-hls_segment_filename", filepath.Join(dir, "%v_%05d.m4s"),
	}
}

func audioArgs() []string {
	return []string{"-c:a", "aac", "-b:a", "128k", "-ac", "2", "-ar", "48000"}
}

// singleCommand is the best that a person writes: one decode, each size
// scaled from the one above it.
func singleCommand(ctx context.Context, clip, dir string) (cost, error) {
	args := []string{
		"-v", "error", "-nostdin", "-y", "-i", clip, "-filter_complex",
		"[0:v]scale=-2:1080,split[v0][n0];[n0]scale=-2:720,split[v1][n1];[n1]scale=-2:480,split[v2][n2];[n2]scale=-2:360[v3]",
	}
	streams := make([]string, 0, len(ladder())+1)
	for i, r := range ladder() {
		args = append(args, "-map", fmt.Sprintf("[v%d]", i))
		args = append(args, encoderArgs(i, r)...)
		streams = append(streams, fmt.Sprintf("v:%d,agroup:audio,name:%s", i, r.name))
	}
	args = append(args, "-map", "0:a:0")
	args = append(args, audioArgs()...)
	args = append(args, hlsArgs(dir)...)
	args = append(args, "-var_stream_map", strings.Join(append(streams, "a:0,agroup:audio,name:audio,default:yes"), " "),
		"-master_pl_name", "master.m3u8", filepath.Join(dir, "%v.m3u8"))

	return command(ctx, "ffmpeg", args...)
}

// commandPerRendition is what most scripts do: the sizes one after the other.
func commandPerRendition(ctx context.Context, clip, dir string) (cost, error) {
	var sum cost
	for _, r := range ladder() {
		args := []string{"-v", "error", "-nostdin", "-y", "-i", clip, "-map", "0:v:0", "-map", "0:a:0", "-vf", "scale=-2:" + strconv.Itoa(r.height)}
		args = append(args, encoderArgs(0, r)...)
		args = append(args, audioArgs()...)
		args = append(args, "-f", "hls", "-hls_time", strconv.Itoa(segmentSeconds), "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4",
			"-hls_fmp4_init_filename", r.name+".mp4",
			"-hls_segment_filename", filepath.Join(dir, r.name+"_%05d.m4s"), filepath.Join(dir, r.name+".m3u8"))
		got, err := command(ctx, "ffmpeg", args...)
		if err != nil {
			return cost{}, err
		}
		sum.wall += got.wall
		sum.cpu += got.cpu
	}

	return sum, nil
}

// stack is a running `tcoder up`.
type stack struct {
	binary string
	cmd    *exec.Cmd
	url    string
}

// readyWithin bounds the start of a stack.
const readyWithin = time.Minute

func startStack(ctx context.Context, s setting) (*stack, error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.work, "up.log"))
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	cmd := exec.Command(s.binary, "up", "--listen", address, "--data", filepath.Join(s.work, "data"), "--pool-limit", "1") //nolint:noctx // it is stopped by a signal, not killed
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start tcoder up: %w", err)
	}
	st := &stack{binary: s.binary, cmd: cmd, url: "http://" + address}
	deadline, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(deadline, st.url) {
			return st, nil
		}
		select {
		case <-deadline.Done():
			return nil, errors.Join(fmt.Errorf("tcoder up isn't ready, see %s", log.Name()), st.stop())
		case <-tick.C:
		}
	}
}

// ready tells whether a control plane serves.
func ready(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	res, err := (&http.Client{Timeout: time.Second}).Do(req)
	if err != nil {
		return false
	}

	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// transcode runs a job through the product: upload, probe, encode, publish.
// Its processor time is the client's and that of every process of the stack.
func (st *stack) transcode(ctx context.Context, clip, _ string) (cost, error) {
	before, err := treeCPU(st.cmd.Process.Pid)
	if err != nil {
		return cost{}, err
	}
	start := time.Now()
	cmd := exec.CommandContext(ctx, st.binary, "transcode", clip, "--preset", "hls-adaptive", "--json", "--server", st.url)
	out, err := cmd.Output()
	if err != nil {
		return cost{}, fmt.Errorf("tcoder transcode: %w\n%s", err, out)
	}
	wall := time.Since(start)
	var job struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(out, &job); err != nil || job.State != "JOB_STATE_COMPLETED" {
		return cost{}, fmt.Errorf("the job ended in %q: %w", job.State, err)
	}
	after, err := treeCPU(st.cmd.Process.Pid)
	if err != nil {
		return cost{}, err
	}

	return cost{wall: wall, cpu: after - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

func (st *stack) stop() error {
	if err := st.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop tcoder up: %w", err)
	}
	if err := st.cmd.Wait(); err != nil {
		return fmt.Errorf("tcoder up: %w", err)
	}

	return nil
}
