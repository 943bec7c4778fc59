package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// The settings of the preset hls-adaptive, written by hand: capped CRF 23,
// veryfast, GOPs of 2 s and segments of 4 s at 24 frames per second.
const (
	gopFrames      = 48
	segmentSeconds = 4
)

// rest is a pause before each contender. A virtual machine gives memory that
// nobody uses back to its host within some seconds, and who takes it next pays
// for that, up to a second of processor time here: so all of them do.
const rest = 10 * time.Second

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

	q.rest = rest
	contenders := []contender{{"product", st.transcode}, {"single", singleCommand}, {"separate", commandPerRendition}}
	costs := make([][]cost, len(contenders))
	for round := range s.rounds {
		fmt.Fprintf(os.Stderr, "transcode: product, round %d of %d\n", round+1, s.rounds)
		order := []int{0, 1, 2}
		if round > 0 {
			order = order[:2] // the third takes longest, and once is enough to compare it
		}
		if round%2 > 0 {
			slices.Reverse(order) // a machine that becomes slower does so for all
		}
		for _, i := range order {
			got, err := contenders[i].measure(ctx, s, q, clip, round == 0)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(os.Stderr, "transcode: product, %s: %.1f s, %.1f s of processor time\n", contenders[i].name, got.wall.Seconds(), got.cpu.Seconds())
			costs[i] = append(costs[i], got)
		}
	}
	compared := likenessSeconds
	if s.short {
		compared = shortSeconds / 2 // where a clip is cut off, both sides fill up what its last group lacks
	}
	difference, err := st.difference(ctx, clip, compared, filepath.Join(s.work, "single-0"), filepath.Join(s.work, "product-0"))
	if err != nil {
		return nil, err
	}

	return append(compare(costs[0], costs[1], costs[2]), atMost(0.002, plain("product/ssim-difference", difference, "SSIM",
		fmt.Sprintf("to the hand-written command, of the rung where it is most; %d s", compared)))), nil
}

// contender is a way to make the ladder of a clip; only the commands fill the folder.
type contender struct {
	name string
	run  func(ctx context.Context, clip, dir string) (cost, error)
}

// measure runs it once. What it made is kept as NAME-0 if it is asked for.
func (c contender) measure(ctx context.Context, s setting, q *quiet, clip string, keep bool) (cost, error) {
	dir := filepath.Join(s.work, c.name+"-0")
	if !keep {
		dir = filepath.Join(s.work, c.name+"-again")
	}
	var got cost
	err := q.run(c.name, func() error {
		err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700))
		if err != nil {
			return fmt.Errorf("scratch folder: %w", err)
		}
		got, err = c.run(ctx, clip, dir)

		return err
	})

	return got, err
}

// difference is how far the SSIM of a rung of the last job is from that of a
// command, at most.
func (st *stack) difference(ctx context.Context, clip string, seconds int, command, dir string) (float64, error) {
	if _, err := st.client.Download(ctx, st.lastJob, tcoder.DownloadOptions{Dir: dir}); err != nil {
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
