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
)

// wrapperName is the name by which the wrapper knows itself.
const wrapperName = "tcoder-sandbox"

// tryWord in place of a program makes the wrapper try itself out.
const tryWord = "try"

func limitsLayer() Layer {
	return Layer{Name: LayerLimits, Active: true, Detail: "processor time, addresses, sizes of files, open files, no core dumps"}
}

func (s *Sandbox) command(ctx context.Context, run Run) (*exec.Cmd, error) {
	path, err := exec.LookPath(run.Path)
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}

	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}

	p := policy{user: s.user, port: run.Port, limits: run.Limits, dir: run.Dir}
	for _, layer := range s.layers {
		if layer.Active {
			p.layers = append(p.layers, layer.Name)
		}
	}

	if p.has(LayerFiles) {
		if p.run, p.read, err = reach(path); err != nil {
			return nil, err
		}
	}

	if !p.user.same {
		p.tasks = mostTasks()

		if err := give(run.Dir, p.user); err != nil {
			return nil, fmt.Errorf("give the folder to the sandbox's user: %w", err)
		}
	}

	return wrapper(ctx, p, append([]string{path}, run.Args...)), nil
}

// mostTasks is how many threads the sandbox's user may have. FFmpeg has some
// for each processor, by encoder and decoder.
func mostTasks() uint64 {
	const base, perProcessor = 1024, 256

	return base + perProcessor*uint64(runtime.NumCPU())
}

// wrapper is this program as the wrapper of another.
func wrapper(ctx context.Context, p policy, program []string) *exec.Cmd {
	p.parent = os.Getpid()

	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append(append([]string{wrapperName}, p.encode()...), program...)
	cmd.Dir = p.dir
	cmd.Env = []string{} // nil would be this process's own
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	if cmd.Dir == "" {
		cmd.Dir = "/"
	}

	return cmd
}

// give makes a folder and what is in it the user's.
func give(dir string, who user) error {
	if dir == "" {
		return nil
	}

	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		return os.Lchown(path, who.uid, who.gid)
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
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, nil, fmt.Errorf("find the program: %w", err)
	}

	run = []string{real}
	read = libraries()

	// Built with its libraries beside it.
	if own := filepath.Join(filepath.Dir(real), "..", "lib"); !slices.Contains(read, own) {
		read = append(read, own)
	}

	file, err := elf.Open(real)
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
func try(ctx context.Context, who user) ([]Layer, error) {
	const patience = 20 * time.Second

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	p := policy{
		layers: []string{LayerFiles, LayerNetwork, LayerCalls, LayerUser, LayerLimits}, user: who,
		read: libraries(), port: tryPort, tasks: mostTasks(), limits: Limits{OpenFiles: 256},
	}
	cmd := wrapper(ctx, p, []string{tryWord})

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
