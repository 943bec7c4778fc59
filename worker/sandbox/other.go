//go:build !linux

package sandbox

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/tcoder-dev/tcoder/worker/sandbox/wrapper"
)

const fixLinux = "run workers on Linux"

func try(context.Context, wrapper.User) ([]Layer, error) {
	var layers []Layer
	for _, name := range []string{LayerFiles, LayerNetwork, LayerCalls, LayerUser} {
		layers = append(layers, Layer{Name: name, Detail: "not available on " + runtime.GOOS, Fix: fixLinux})
	}

	return append(layers, limitsLayer()), nil
}

func limitsLayer() Layer {
	return Layer{Name: LayerLimits, Detail: "not available on " + runtime.GOOS + ", but for time", Fix: fixLinux}
}

func (s *Sandbox) command(ctx context.Context, run Run) (*exec.Cmd, error) {
	path, err := exec.LookPath(run.Path)
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}

	cmd := exec.CommandContext(ctx, path, run.Args...)
	cmd.Dir, cmd.Env = run.Dir, []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	return cmd, nil
}
