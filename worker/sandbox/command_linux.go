package sandbox

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tcoder-dev/tcoder/worker/sandbox/wrapper"
)

func limitsLayer() Layer { return wrapper.BoundsLayer() }

func (s *Sandbox) command(ctx context.Context, run Run) (*exec.Cmd, error) {
	path, err := exec.LookPath(run.Path)
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}

	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}

	p := &wrapper.Policy{User: s.user, Port: run.Port, Limits: run.Limits, Dir: run.Dir, Hurry: run.Hurry}
	for _, layer := range s.layers {
		if layer.Active {
			p.Layers = append(p.Layers, layer.Name)
		}
	}

	if s.has(LayerFiles) {
		if p.Run, p.Read, err = reach(path); err != nil {
			return nil, err
		}
	}

	if !p.User.Same {
		p.Limits.Tasks = mostTasks()

		if err := give(run.Dir, p.User); err != nil {
			return nil, fmt.Errorf("give the folder to the sandbox's user: %w", err)
		}
	}

	return wrapped(ctx, p, append([]string{path}, run.Args...)), nil
}

// mostTasks is how many threads the sandbox's user may have. FFmpeg has some
// for each processor, by encoder and decoder.
func mostTasks() uint64 {
	const base, perProcessor = 1024, 256

	return base + perProcessor*uint64(runtime.NumCPU())
}

// wrapped is a program, with its arguments, in this one as its wrapper.
func wrapped(ctx context.Context, p *wrapper.Policy, program []string) *exec.Cmd {
	p.Parent = os.Getpid()

	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append(append([]string{wrapper.Name}, p.Encode()...), program...)
	cmd.Dir = p.Dir
	cmd.Env = []string{} // nil would be this process's own
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	if cmd.Dir == "" {
		cmd.Dir = "/"
	}

	return cmd
}

// give makes a folder and what is in it the user's.
func give(dir string, who wrapper.User) error {
	if dir == "" {
		return nil
	}

	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		return os.Lchown(path, who.UID, who.GID) //nolint:gosec // nothing runs in the folder yet, and what ran before could make no links
	})
}

// libraries are where programs have their libraries, and what tells a program
// of the machine's processors.
func libraries() []string {
	return []string{
		"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/nix/store", "/gnu/store",
		"/etc/ld.so.cache", "/dev/urandom", "/proc/cpuinfo", "/sys/devices/system/cpu", "/sys/devices/system/node",
	}
}

// reach are the files that a program must be able to execute, and what it must
// be able to read, to start.
func reach(path string) (run, read []string, err error) {
	program, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, nil, fmt.Errorf("find the program: %w", err)
	}

	run = []string{program}
	read = libraries()

	// Built with its libraries beside it.
	if own := filepath.Join(filepath.Dir(program), "..", "lib"); !slices.Contains(read, own) {
		read = append(read, own)
	}

	file, err := elf.Open(program)
	if err != nil {
		return nil, nil, fmt.Errorf("read the program: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read

	for _, segment := range file.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}

		name := make([]byte, segment.Filesz)
		if _, err := segment.ReadAt(name, 0); err != nil {
			return nil, nil, fmt.Errorf("read the program: %w", err)
		}

		loader, err := filepath.EvalSymlinks(strings.TrimRight(string(name), "\x00"))
		if err != nil {
			return nil, nil, fmt.Errorf("find the program's loader: %w", err)
		}

		run = append(run, loader)
	}

	return run, read, nil
}

// try runs the wrapper with all layers and asks it what holds.
func try(ctx context.Context, who wrapper.User) ([]Layer, error) {
	const patience = 20 * time.Second

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	p := &wrapper.Policy{
		Layers: []string{LayerFiles, LayerNetwork, LayerCalls, LayerUser, LayerLimits}, User: who,
		Read: libraries(), Port: wrapper.TryPort, Limits: Limits{OpenFiles: 256, Tasks: mostTasks()},
	}
	cmd := wrapped(ctx, p, []string{wrapper.Try})

	output, err := cmd.Output()
	if err != nil {
		if exited, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, exited.Stderr)
		}

		return nil, err
	}

	var layers []Layer

	lines := bufio.NewScanner(strings.NewReader(string(output)))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 4 { //nolint:mnd // what report writes
			return nil, fmt.Errorf("the wrapper says %q", lines.Text())
		}

		layers = append(layers, Layer{Name: fields[0], Active: fields[1] == "true", Detail: fields[2], Fix: fields[3]})
	}

	return layers, nil
}
