package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/tcoder-dev/tcoder/worker/sandbox/wrapper"
)

// Mode is how much of a sandbox is asked for.
type Mode string

// The modes.
const (
	// Auto takes the layers that the machine has.
	Auto Mode = "auto"
	// Require takes nothing less than files, network and system calls.
	Require Mode = "require"
	// Off takes the limits alone.
	Off Mode = "off"
)

// The users that aren't numbers.
const (
	// UserAuto is nobody if this process is root, and who it is otherwise.
	UserAuto = "auto"
	// UserSame is who this process is.
	UserSame = "same"
)

// Config is what is asked for. The zero value means Auto and UserAuto.
type Config struct {
	Mode Mode
	// User is UserAuto, UserSame or "uid:gid".
	User string
}

// The layers, by the names that Layers gives them.
const (
	LayerFiles   = wrapper.Files
	LayerNetwork = wrapper.Network
	LayerCalls   = wrapper.Calls
	LayerUser    = wrapper.Account
	LayerLimits  = wrapper.Bounds
)

// Layer is a layer of the sandbox, and whether this machine has it.
type Layer = wrapper.Layer

// Limits are bounds on what a program may use. A zero field bounds nothing.
type Limits = wrapper.Limits

// ErrSettings is what is wrong with a Config.
var ErrSettings = errors.New("sandbox")

// ErrIncomplete is why New fails where a sandbox is required.
var ErrIncomplete = errors.New("this machine can't keep FFmpeg in a sandbox")

// Sandbox is what holds on this machine.
type Sandbox struct {
	layers []Layer
	user   wrapper.User
}

// New tries out what this machine has. With Require it fails with
// ErrIncomplete, which says what is missing.
func New(ctx context.Context, cfg Config) (*Sandbox, error) {
	who, err := parseUser(cfg.User)
	if err != nil {
		return nil, err
	}

	switch cfg.Mode {
	case Off:
		return Limited(), nil
	case Auto, Require, "":
	default:
		return nil, fmt.Errorf("%w: %q is none of %s, %s and %s", ErrSettings, cfg.Mode, Auto, Require, Off)
	}

	s := &Sandbox{user: who}
	if s.layers, err = try(ctx, who); err != nil {
		return nil, fmt.Errorf("try the sandbox: %w", err)
	}

	if !s.has(LayerUser) {
		if cfg.User != "" && cfg.User != UserAuto {
			return nil, fmt.Errorf("%w: user %s: %s", ErrSettings, cfg.User, s.layer(LayerUser).Detail)
		}

		s.user = wrapper.User{Same: true}
	}

	if cfg.Mode != Require {
		return s, nil
	}

	var missing []string

	for _, name := range []string{LayerFiles, LayerNetwork, LayerCalls} {
		if layer := s.layer(name); !layer.Active {
			missing = append(missing, fmt.Sprintf("%s: %s (%s)", name, layer.Detail, layer.Fix))
		}
	}

	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrIncomplete, strings.Join(missing, "; "))
	}

	return s, nil
}

// Limited is the sandbox of Off: limits alone.
func Limited() *Sandbox {
	s := &Sandbox{user: wrapper.User{Same: true}}

	for _, name := range []string{LayerFiles, LayerNetwork, LayerCalls, LayerUser} {
		s.layers = append(s.layers, Layer{Name: name, Detail: "turned off", Fix: "--sandbox auto"})
	}

	s.layers = append(s.layers, limitsLayer())

	return s
}

// Default is the sandbox of Auto, tried out once.
func Default() *Sandbox { return fallback() }

//nolint:gochecknoglobals // what the machine has doesn't change
var fallback = sync.OnceValue(func() *Sandbox {
	s, err := New(context.Background(), Config{})
	if err == nil {
		return s
	}

	s = Limited()
	for i := range s.layers {
		if !s.layers[i].Active {
			s.layers[i].Detail, s.layers[i].Fix = err.Error(), ""
		}
	}

	return s
})

// Layers tells of each layer.
func (s *Sandbox) Layers() []Layer { return s.layers }

func (s *Sandbox) layer(name string) Layer {
	for _, layer := range s.layers {
		if layer.Name == name {
			return layer
		}
	}

	return Layer{Name: name}
}

func (s *Sandbox) has(name string) bool { return s.layer(name).Active }

// Run is one run of a program.
type Run struct {
	// Path is the program, with its Args.
	Path string
	Args []string
	// Dir is the one folder that it may write to, and where it runs. Empty:
	// none, and it can't write a byte.
	Dir string
	// Port is the one TCP port that it may connect to; 0: none.
	Port uint16
	// Limits bound it; a zero field bounds nothing.
	Limits Limits
	// Hurry gives it most of the processor beside other runs.
	Hurry bool
}

// ExitFailed is the exit status, and Prefix the start of standard error, of a
// run that the sandbox itself failed.
const (
	ExitFailed = wrapper.ExitFailed
	Prefix     = wrapper.Prefix
)

// Command is the run as a command with an empty environment, in a process
// group of its own that dies with this process. What is in Dir becomes the
// program's. The error wraps fs.ErrNotExist if there is no such program.
func (s *Sandbox) Command(ctx context.Context, run Run) (*exec.Cmd, error) {
	return s.command(ctx, run)
}

const (
	nobody = 65534
	root   = 0
)

// parseUser reads Config.User.
func parseUser(text string) (wrapper.User, error) {
	switch text {
	case UserAuto, "":
		if os.Geteuid() == root {
			return wrapper.User{UID: nobody, GID: nobody}, nil
		}

		return wrapper.User{Same: true}, nil
	case UserSame:
		return wrapper.User{Same: true}, nil
	}

	first, second, both := strings.Cut(text, ":")
	uid, errUID := strconv.ParseUint(first, 10, 31)
	gid, errGID := strconv.ParseUint(second, 10, 31)

	if !both || errUID != nil || errGID != nil {
		return wrapper.User{}, fmt.Errorf("%w: user %q is none of %s, %s and uid:gid", ErrSettings, text, UserAuto, UserSame)
	}

	return wrapper.User{UID: int(uid), GID: int(gid)}, nil
}
