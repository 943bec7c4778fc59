package doctor

import (
	"context"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

const (
	programTimeout = 20 * time.Second
	fixFFmpeg      = "apt-get install ffmpeg (in a checkout: make deps)"
	fixFFmpegBuild = "install an FFmpeg that is built with it, such as Debian's: apt-get install ffmpeg"
	// Older ones lack options that the worker passes.
	leastFFmpeg = 5
)

// checkFFmpeg looks for what a worker needs.
func (d *doctor) checkFFmpeg(ctx context.Context) []finding {
	var findings []finding
	for _, program := range []string{"ffmpeg", "ffprobe"} {
		findings = append(findings, checkProgram(ctx, program))
	}
	tools, err := ffmpeg.Find()
	if err != nil {
		return findings
	}
	tools.Sandbox = d.keeper

	return append(append(findings, checkEncoders(ctx, tools)...), checkFilters(ctx, tools.FFmpeg))
}

func checkProgram(ctx context.Context, name string) finding {
	path, err := exec.LookPath(name)
	if err != nil {
		return fail(name, fixFFmpeg, "not installed")
	}
	out, err := output(ctx, path, "-version")
	if err != nil {
		return fail(name, fixFFmpeg, "%s doesn't run: %v", path, err)
	}
	version := thirdWord(out)
	if major, known := majorVersion(version); known && major < leastFFmpeg {
		return warn(name, fixFFmpeg, "%s at %s is older than %d", version, path, leastFFmpeg)
	}

	return ok(name, "%s at %s", version, path)
}

// output runs a program and returns what it prints.
func output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).Output()

	return string(out), err
}

// thirdWord is the version in "ffmpeg version 5.1.9-0+deb12u1 Copyright ...".
func thirdWord(text string) string {
	words := strings.Fields(text)
	if len(words) < 3 {
		return "unknown version"
	}

	return words[2]
}

// majorVersion is 5 of 5.1.9; builds from a branch have none.
func majorVersion(version string) (int, bool) {
	first, _, _ := strings.Cut(strings.TrimPrefix(version, "n"), ".")
	major, err := strconv.Atoi(first)

	return major, err == nil
}

func checkEncoders(ctx context.Context, tools ffmpeg.Tools) []finding {
	tools, err := tools.Inspect(ctx)
	if err != nil {
		return []finding{fail("encoders", fixFFmpeg, "FFmpeg doesn't list them: %v", err)}
	}
	var findings []finding
	for _, encoder := range []struct {
		name, makes string
		needed      bool
	}{
		{"libx264", "H.264", true}, {"aac", "AAC", true}, {"libx265", "HEVC", false}, {"libsvtav1", "AV1", false},
	} {
		switch {
		case slices.Contains(tools.Encoders, encoder.name):
			findings = append(findings, ok(encoder.name, "FFmpeg encodes %s", encoder.makes))
		case encoder.needed:
			findings = append(findings, fail(encoder.name, fixFFmpegBuild, "FFmpeg can't encode %s, which every preset makes", encoder.makes))
		default:
			findings = append(findings, warn(encoder.name, fixFFmpegBuild, "FFmpeg can't encode %s: jobs that ask for it fail", encoder.makes))
		}
	}

	return findings
}

func checkFilters(ctx context.Context, path string) finding {
	out, err := output(ctx, path, "-hide_banner", "-filters")
	if err != nil {
		return fail("filters", fixFFmpeg, "FFmpeg doesn't list them: %v", err)
	}
	words := strings.Fields(out)
	for _, filter := range []string{"zscale", "tonemap"} {
		if !slices.Contains(words, filter) {
			return warn("filters", fixFFmpegBuild, "FFmpeg lacks %s: HDR sources fail", filter)
		}
	}

	return ok("filters", "FFmpeg maps HDR to SDR")
}
