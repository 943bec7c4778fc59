package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
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

// product compares hls-adaptive through the whole product with the best
// single FFmpeg command and with one FFmpeg per rendition, on the same 1080p
// clip, with the same codec settings: what they take, and what they look like.
func product(ctx context.Context, s setting, q *quiet) (_ []Result, err error) {
	clip, err := mix(ctx, s)
	if err != nil {
		return nil, err
	}
	st, err := startStack(ctx, s, "--pool-limit", "1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()

	contenders := []contender{st.product(clip), singleCommand(clip), commandPerRendition(clip)}
	costs := make([][]cost, len(contenders))
	var turns []*turn
	for round := range s.rounds {
		fmt.Fprintf(os.Stderr, "transcode: product, round %d of %d\n", round+1, s.rounds)
		if round == 1 {
			contenders = contenders[:2] // the third takes longest, and once is enough to compare it
		}
		if turns, err = race(ctx, s, q, "product", contenders); err != nil {
			return nil, err
		}
		for i, t := range turns {
			fmt.Fprintf(os.Stderr, "transcode: product, %s: %.1f s, %.1f s of processor time\n", contenders[i].name, t.took.wall.Seconds(), t.took.cpu.Seconds())
			costs[i] = append(costs[i], t.took)
		}
	}
	job, err := jobID(turns[0].out.Bytes())
	if err != nil {
		return nil, err
	}
	compared := likenessSeconds
	if s.short {
		compared = shortSeconds / 2 // where a clip is cut off, both sides fill up what its last group lacks
	}
	difference, err := st.difference(ctx, job, clip, compared, filepath.Join(s.work, "single"), filepath.Join(s.work, "product"))
	if err != nil {
		return nil, err
	}

	return append(compare(costs[0], costs[1], costs[2]), atMost(0.002, plain("product/ssim-difference", difference, "SSIM",
		fmt.Sprintf("to the hand-written command, of the rung where it is most; %d s", compared)))), nil
}

// contender is a command that makes the ladder of a clip, in a folder of its
// name or by a server.
type contender struct {
	name    string
	args    []string
	servers []int // see turn
}

// race runs contenders of a part by turns.
func race(ctx context.Context, s setting, q *quiet, part string, all []contender) (turns []*turn, err error) {
	err = q.run(part, func() error {
		turns = nil
		for _, c := range all {
			t := &turn{args: c.args, servers: c.servers, dir: filepath.Join(s.work, c.name)}
			if err := errors.Join(os.RemoveAll(t.dir), os.Mkdir(t.dir, 0o700)); err != nil {
				return fmt.Errorf("scratch folder: %w", err)
			}
			turns = append(turns, t)
		}

		return takeTurns(ctx, turns)
	})

	return turns, err
}

// product is a job through the whole product: upload, probe, encode, publish.
func (st *stack) product(clip string) contender {
	return contender{name: "product", args: st.ladderOf(clip), servers: []int{st.up.PID()}}
}

// ladderOf is the command of a job that makes the ladder of a clip.
func (st *stack) ladderOf(clip string) []string {
	return []string{st.binary, "transcode", clip, "--preset", "hls-adaptive", "--no-copy", "--json", "--server", st.url}
}

// jobID is the id of the job that the CLI printed.
func jobID(printed []byte) (string, error) {
	var job struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(printed, &job); err != nil {
		return "", fmt.Errorf("the job: %w", err)
	}

	return job.ID, nil
}

// difference is how far the SSIM of a rung of a job is from that of a command,
// at most.
func (st *stack) difference(ctx context.Context, job, clip string, seconds int, command, dir string) (float64, error) {
	if _, err := st.client.Download(ctx, job, tcoder.DownloadOptions{Dir: dir}); err != nil {
		return 0, fmt.Errorf("the product's ladder: %w", err)
	}
	theirs, err := likeness(ctx, clip, command, seconds)
	if err != nil {
		return 0, err
	}
	ours, err := likeness(ctx, clip, dir, seconds)
	if err != nil {
		return 0, err
	}
	worst := 0.0
	for i := range ours {
		worst = max(worst, math.Abs(ours[i]-theirs[i]))
	}

	return worst, nil
}

// likenessSeconds is how much of each rung is compared with the source.
const likenessSeconds = 20

// likeness is the SSIM of each rung of a ladder in a folder to its source.
func likeness(ctx context.Context, clip, dir string, seconds int) ([]float64, error) {
	var found []float64
	for _, r := range ladder() {
		log, err := output(ctx, "ffmpeg", "-v", "info", "-nostats", "-nostdin", "-allowed_extensions", "ALL",
			"-i", filepath.Join(dir, r.name+".m3u8"), "-i", clip,
			"-lavfi", fmt.Sprintf("[0:v]setpts=PTS-STARTPTS[a];[1:v]setpts=PTS-STARTPTS,scale=-2:%d[b];[a][b]ssim", r.height),
			"-t", strconv.Itoa(seconds), "-an", "-f", "null", "-")
		if err != nil {
			return nil, err
		}
		_, all, _ := strings.Cut(log, " All:")
		ssim, err := strconv.ParseFloat(strings.SplitN(all, " ", 2)[0], 64)
		if err != nil {
			return nil, fmt.Errorf("SSIM of %s: %w", r.name, err)
		}
		found = append(found, ssim)
	}

	return found, nil
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
		plain("product/wall", median(figures(product, wall)), "s", ""),
		plain("product/cpu", median(figures(product, cpu)), "s", ""),
		plain("product/single/wall", median(figures(single, wall)), "s", ""),
		plain("product/single/cpu", median(figures(single, cpu)), "s", ""),
		atMost(1.05, plain("product/wall-ratio-single", ratio(single, wall), "ratio", one)),
		atMost(1, plain("product/cpu-ratio-single", ratio(single, cpu), "ratio", one)),
		atMost(0.75, plain("product/wall-ratio-separate", ratio(separate, wall), "ratio", each)),
		plain("product/cpu-ratio-separate", ratio(separate, cpu), "ratio", each),
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

func hlsArgs() []string {
	return []string{
		"-f", "hls", "-hls_time", strconv.Itoa(segmentSeconds), "-hls_playlist_type", "vod", "-hls_flags", "independent_segments",
		"-hls_segment_type", "fmp4", "-hls_segment_filename", "%v_%05d.m4s",
	}
}

func audioArgs() []string {
	return []string{"-c:a", "aac", "-b:a", "128k", "-ac", "2", "-ar", "48000"}
}

// singleCommand is the best that a person writes: one decode, each size
// scaled from the one above it.
func singleCommand(clip string) contender {
	args := []string{
		"ffmpeg", "-v", "error", "-nostdin", "-y", "-i", clip, "-filter_complex",
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
	args = append(args, hlsArgs()...)
	args = append(args, "-var_stream_map", strings.Join(append(streams, "a:0,agroup:audio,name:audio,default:yes"), " "),
		"-master_pl_name", "master.m3u8", "%v.m3u8")

	return contender{name: "single", args: args}
}

// quoted is a command for a shell. No argument of it has quotes.
func quoted(command []string) string { return "'" + strings.Join(command, "' '") + "'" }

// commandPerRendition is what most scripts do: the sizes one after the other.
func commandPerRendition(clip string) contender {
	script := []string{"set -e"}
	for _, r := range ladder() {
		args := []string{"ffmpeg", "-v", "error", "-nostdin", "-y", "-i", clip, "-map", "0:v:0", "-map", "0:a:0", "-vf", "scale=-2:" + strconv.Itoa(r.height)}
		args = append(args, encoderArgs(0, r)...)
		args = append(args, audioArgs()...)
		args = append(args, "-f", "hls", "-hls_time", strconv.Itoa(segmentSeconds), "-hls_playlist_type", "vod", "-hls_segment_type", "fmp4",
			"-hls_fmp4_init_filename", r.name+".mp4", "-hls_segment_filename", r.name+"_%05d.m4s", r.name+".m3u8")
		script = append(script, quoted(args))
	}

	return contender{name: "separate", args: []string{"sh", "-c", strings.Join(script, "\n")}}
}
