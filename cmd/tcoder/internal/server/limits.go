package server

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/media"
)

// sourceLimits bound what a source may be.
type sourceLimits struct {
	bytes int64
	input media.Limits
}

// inputSettings are the bounds of every project, and those of some.
type inputSettings struct {
	sourceLimits

	overrides []string
	projects  map[string]sourceLimits
}

func (s *inputSettings) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Int64Var(&s.bytes, "max-upload-bytes", 100<<30, "largest source, in bytes")
	// 8K, a day, and more streams than anybody needs.
	flags.Int64Var(&s.input.MaxPixels, "max-input-pixels", 8192*4320, "most pixels of a source's picture")
	flags.DurationVar(&s.input.MaxDuration, "max-input-duration", 24*time.Hour, "how long a source may last")
	flags.Float64Var(&s.input.MaxFPS, "max-input-fps", 240, "most frames per second of a source")
	flags.IntVar(&s.input.MaxStreams, "max-input-streams", 64, "most streams of a source")
	flags.StringSliceVar(&s.overrides, "project-limit", nil,
		"limits of one project's sources, as PROJECT:SETTING=VALUE, such as film:max-input-duration=48h; the settings are max-upload-bytes and max-input-*")
}

// read completes the limits of projects, and checks all.
func (s *inputSettings) read() error {
	if err := s.check(); err != nil {
		return err
	}
	s.projects = map[string]sourceLimits{}
	for _, item := range s.overrides {
		project, setting, found := strings.Cut(strings.TrimSpace(item), ":")
		name, value, given := strings.Cut(setting, "=")
		if !found || !given || project == "" {
			return cli.Usagef("project-limit: %q is not PROJECT:SETTING=VALUE", item)
		}
		limits, known := s.projects[project]
		if !known {
			limits = s.sourceLimits
		}
		err := limits.set(name, value)
		if err == nil {
			err = limits.check()
		}
		if err != nil {
			return cli.Usagef("project-limit: %q: %v", item, err)
		}
		s.projects[project] = limits
	}

	return nil
}

// set sets one limit by the name of its flag.
func (l *sourceLimits) set(name, value string) (err error) {
	switch name {
	case "max-upload-bytes":
		l.bytes, err = strconv.ParseInt(value, 10, 64)
	case "max-input-pixels":
		l.input.MaxPixels, err = strconv.ParseInt(value, 10, 64)
	case "max-input-duration":
		l.input.MaxDuration, err = time.ParseDuration(value)
	case "max-input-fps":
		l.input.MaxFPS, err = strconv.ParseFloat(value, 64)
	case "max-input-streams":
		l.input.MaxStreams, err = strconv.Atoi(value)
	default:
		err = fmt.Errorf("there is no limit %q", name)
	}

	return err
}

func (l *sourceLimits) check() error {
	switch {
	case l.bytes < 1:
		return cli.Usagef("max-upload-bytes: %d is not positive", l.bytes)
	case l.input.MaxPixels < 1 || l.input.MaxDuration < time.Second || l.input.MaxStreams < 1 || l.input.MaxStreams > math.MaxInt32 ||
		!(l.input.MaxFPS >= 1): // neither is NaN
		return cli.Usagef("max-input-pixels, -duration, -fps, -streams: none may be below 1 or 1s")
	}

	return nil
}

// inputs are the bounds of projects that have their own.
func (s *inputSettings) inputs() map[string]media.Limits {
	limits := map[string]media.Limits{}
	for project, own := range s.projects {
		limits[project] = own.input
	}

	return limits
}

// sizes are the largest sources of projects that have their own bound.
func (s *inputSettings) sizes() map[string]int64 {
	sizes := map[string]int64{}
	for project, own := range s.projects {
		sizes[project] = own.bytes
	}

	return sizes
}
