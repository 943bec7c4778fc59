package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// rate compares what the default rate control spends with a ladder of fixed
// bitrates, and tells what the 720p rung looks like clip by clip.
func rate(ctx context.Context, s setting, _ *quiet) (_ []Result, err error) {
	clip, err := mix(ctx, s)
	if err != nil {
		return nil, err
	}
	st, err := startStack(ctx, s, "--pool-limit", "1")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	var bits [2]map[string]float64
	var looks [2][]float64
	for i, control := range []tcoderv1.RateControl{tcoderv1.RateControl_RATE_CONTROL_UNSPECIFIED, tcoderv1.RateControl_RATE_CONTROL_BITRATE} {
		job, _, err := st.run(ctx, clip, &tcoderv1.JobSpec{
			Preset: "hls-adaptive", Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER, Video: &tcoderv1.VideoSettings{RateControl: control},
		})
		if err != nil {
			return nil, err
		}
		bits[i] = map[string]float64{}
		for _, r := range job.GetOutputs()[0].GetRenditions() {
			bits[i][r.GetName()] = float64(r.GetAverageBitrateBps())
		}
		dir, err := os.MkdirTemp(s.work, "rate-")
		if err != nil {
			return nil, fmt.Errorf("scratch folder: %w", err)
		}
		if _, err := st.client.Download(ctx, job.GetId(), tcoder.DownloadOptions{Dir: dir}); err != nil {
			return nil, fmt.Errorf("download: %w", err)
		}
		if looks[i], err = decibels(ctx, clip, filepath.Join(dir, "720p.m3u8"), filepath.Join(dir, "psnr.log")); err != nil {
			return nil, err
		}
	}
	var results []Result
	for _, r := range ladder() {
		saved := 1 - bits[0][r.name]/bits[1][r.name]
		result := plain("rate/"+r.name+"/saved", saved, "ratio",
			fmt.Sprintf("of the bits at a fixed bitrate: %.0f instead of %.0f kb/s", bits[0][r.name]/1000, bits[1][r.name]/1000))
		if r.name == "720p" {
			result = atLeast(0.4, result)
		}
		results = append(results, result)
	}
	hardest := 0
	for i, db := range looks[1] {
		results = append(results, plain("rate/720p/"+mixParts()[i].name+"/psnr-loss", db-looks[0][i], "dB", fmt.Sprintf("%.1f dB at the fixed bitrate", db)))
		if db < looks[1][hardest] {
			hardest = i
		}
	}

	return append(results, atMost(0.6, plain("rate/720p/hardest/psnr-loss", looks[1][hardest]-looks[0][hardest], "dB", mixParts()[hardest].name))), nil
}

// mixParts are the clips that the mix is made of, by their seconds in it.
func mixParts() []struct {
	name string
	end  float64
} {
	return []struct {
		name string
		end  float64
	}{{"camera", 12}, {"film", 31}, {"traffic", 43}, {"ocean", 51}, {"camera-flipped", 62}}
}

// decibels is the PSNR of a rung of the mix to its source, of each clip in it.
func decibels(ctx context.Context, clip, rung, log string) ([]float64, error) {
	if _, err := output(ctx, "ffmpeg", "-v", "error", "-nostdin", "-allowed_extensions", "ALL", "-i", rung, "-i", clip,
		"-lavfi", "[0:v]setpts=PTS-STARTPTS[a];[1:v]setpts=PTS-STARTPTS,scale=-2:720[b];[a][b]psnr=stats_file="+log,
		"-an", "-f", "null", "-"); err != nil {
		return nil, err
	}
	file, err := os.Open(log)
	if err != nil {
		return nil, fmt.Errorf("PSNR: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	sums, counts := make([]float64, len(mixParts())), make([]float64, len(mixParts()))
	part, frames := 0, 0
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		const framesPerSecond = 24
		for part+1 < len(sums) && float64(frames) >= mixParts()[part].end*framesPerSecond {
			part++
		}
		_, rest, _ := strings.Cut(lines.Text(), "mse_avg:")
		mse, err := strconv.ParseFloat(strings.SplitN(rest, " ", 2)[0], 64)
		if err != nil {
			return nil, fmt.Errorf("PSNR: %w", err)
		}
		sums[part] += mse
		counts[part]++
		frames++
	}
	var found []float64
	for i, sum := range sums {
		if counts[i] > 0 { // a short mix holds the first clip alone
			found = append(found, 10*math.Log10(255*255*counts[i]/sum))
		}
	}

	return found, lines.Err()
}
