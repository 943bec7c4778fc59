package server

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
)

// logSettings say how a long-running command logs.
type logSettings struct {
	level  string
	format string
}

func (s *logSettings) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.level, "log-level", "info", "least level to log: debug, info, warn or error")
	cmd.Flags().StringVar(&s.format, "log-format", "text", "form of the log: text or json")
}

func (s *logSettings) logger(out io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.level)); err != nil {
		return nil, cli.Usagef("log level %q: use debug, info, warn or error", s.level)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch s.format {
	case "text":
		return slog.New(slog.NewTextHandler(out, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, opts)), nil
	default:
		return nil, cli.Usagef("log format %q: use text or json", s.format)
	}
}
