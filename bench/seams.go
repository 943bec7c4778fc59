package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// seamSeconds is how much of each clip is cut and compared.
const seamSeconds = 30

// seams tells whether a picture made in chunks has the frames and timestamps of
// one made whole: real clips of every cadence, with a seam every segment.
func seams(ctx context.Context, s setting, _ *quiet) (_ []Result, err error) {
	clips, err := seamClips(ctx, s)
	if err != nil {
		return nil, err
	}
	e, err := startEngine(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	fast := "ultrafast"
	spec := &tcoderv1.JobSpec{
		Preset: "hls-adaptive", Qualities: []string{"240p"}, Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER,
		Video: &tcoderv1.VideoSettings{EncoderPreset: &fast},
	}
	var results []Result
	for _, c := range clips {
		work, err := e.picture(ctx, c.path, spec)
		if err != nil {
			return nil, err
		}
		parts := inSegments(work)
		if len(parts) < 2 {
			return nil, fmt.Errorf("invalid: %s has no seam", c.name)
		}
		var stamps [2][]float64
		for i, works := range [][]*tcoderv1.EncodeWork{{work}, parts} {
			encoded, _, err := e.encode(ctx, c.path, 1, works...)
			if err != nil {
				return nil, err
			}
			path := filepath.Join(e.dir, fmt.Sprintf("%s-%d.mp4", c.name, i))
			if err := joined(path, encoded); err != nil {
				return nil, err
			}
			if stamps[i], err = timestamps(ctx, path); err != nil {
				return nil, err
			}
		}
		deviation := 0.0
		for i := range min(len(stamps[0]), len(stamps[1])) {
			deviation = max(deviation, 1000*math.Abs(stamps[0][i]-stamps[1][i]))
		}
		peer := fmt.Sprintf("made whole; %d frames, %d seams", len(stamps[0]), len(parts)-1)
		results = append(results,
			atMost(0, plain("seams/"+c.name+"/frames", math.Abs(float64(len(stamps[0])-len(stamps[1]))), "missing", peer)),
			atMost(0, plain("seams/"+c.name+"/deviation", deviation, "ms", "the same")))
	}

	return results, nil
}

type namedClip struct{ name, path string }

// seamClips are the real clips, and what is made of them for want of a real
// one: 29.97 frames a second, a changing cadence, a clock that starts late.
func seamClips(ctx context.Context, s setting) ([]namedClip, error) {
	var clips []namedClip
	for _, c := range []struct{ name, file string }{
		{"camera-23.976", "camera1080.mp4"},
		{"film-24", "sintel720.mp4"},
		{"traffic-59.94", "tv540p60.mp4"},
		{"ocean-24", "ocean720.mp4"},
		{"mix-24", "mix1080.mp4"},
	} {
		path, err := clipOf(ctx, s, c.file, seamSeconds)
		if err != nil {
			return nil, err
		}
		clips = append(clips, namedClip{c.name, path})
	}
	quick := []string{"-t", strconv.Itoa(seamSeconds), "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "copy"}
	for _, c := range []struct {
		name  string
		of    int // of the clips above
		after []string
	}{
		{"camera-29.97", 0, append([]string{"-vf", "fps=30000/1001,scale=-2:540"}, quick...)},
		// Two of seven frames are left out, and what is left keeps its time.
		{"film-vfr", 1, append([]string{"-vf", "select='lt(mod(n,7),5)',scale=-2:360", "-fps_mode", "vfr"}, quick...)},
		{"traffic-odd-start", 2, []string{"-c", "copy", "-output_ts_offset", "0.377"}},
	} {
		path, err := madeOf(ctx, s, clips[c.of].path, c.name+".mp4", nil, c.after...)
		if err != nil {
			return nil, err
		}
		clips = append(clips, namedClip{c.name, path})
	}

	return clips, nil
}

// timestamps are those of all frames of a file, in order of playback.
func timestamps(ctx context.Context, path string) ([]float64, error) {
	text, err := output(ctx, "ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "frame=pts_time", "-of", "csv=p=0", path)
	if err != nil {
		return nil, err
	}
	var stamps []float64
	for line := range strings.Lines(text) {
		value, _, _ := strings.Cut(strings.TrimSpace(line), ",")
		if value == "" {
			continue
		}
		at, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("timestamps: %w", err)
		}
		stamps = append(stamps, at)
	}

	return stamps, nil
}
