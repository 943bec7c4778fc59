package server

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// Sandbox are the settings of what FFmpeg is kept in.
type Sandbox struct {
	Mode string
	User string
}

// Register adds the flags.
func (s *Sandbox) Register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.Mode, "sandbox", string(sandbox.Auto), "how FFmpeg is kept from files and networks: auto (by what the kernel has), require (refuse to work without), or off (limits alone)")
	flags.StringVar(&s.User, "sandbox-user", sandbox.UserAuto, "whom FFmpeg runs as, uid:gid, same (as the worker), or auto (nobody, if the worker is root)")
}

// Open tries the sandbox out.
func (s *Sandbox) Open(ctx context.Context) (*sandbox.Sandbox, error) {
	opened, err := sandbox.New(ctx, sandbox.Config{Mode: sandbox.Mode(s.Mode), User: s.User})

	if errors.Is(err, sandbox.ErrSettings) {
		return nil, &cli.UsageError{Err: err}
	}

	return opened, err
}

// env is the same for a worker of the pool.
func (s *Sandbox) env() map[string]string {
	return map[string]string{cli.EnvName("sandbox"): s.Mode, cli.EnvName("sandbox-user"): s.User}
}

// logSandbox tells once what a worker's FFmpeg is kept in.
func logSandbox(log *slog.Logger, opened *sandbox.Sandbox) {
	for _, layer := range opened.Layers() {
		if layer.Active {
			log.Info("FFmpeg is kept in a sandbox", "layer", layer.Name, "detail", layer.Detail)
		} else {
			log.Warn("FFmpeg's sandbox lacks a layer", "layer", layer.Name, "reason", layer.Detail, "fix", layer.Fix)
		}
	}
}
