package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/local"
)

// startWorker starts a worker of one slot, kept to one processor unless that
// is negative: FFmpeg has one thread there.
func startWorker(ctx context.Context, s setting, st *stack, processor int) (_ *child, scratch string, err error) {
	dir, err := os.MkdirTemp(s.work, "worker-")
	if err != nil {
		return nil, "", fmt.Errorf("scratch folder: %w", err)
	}
	scratch = filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return nil, "", fmt.Errorf("scratch folder: %w", err)
	}
	before, err := st.slots(ctx)
	if err != nil {
		return nil, "", err
	}
	args := pinned(processor, s.binary, "worker", "--server", st.url, "--scratch", scratch)
	w, err := startChild(ctx, filepath.Join(dir, "worker.log"), local.ProcessConfig{
		Name: "worker",
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			return exec.CommandContext(ctx, args[0], args[1:]...), nil
		},
		Check: func(ctx context.Context) error {
			slots, err := st.slots(ctx)
			if err == nil && slots <= before {
				err = errors.New("it isn't attached yet")
			}

			return err
		},
	})

	return w, scratch, err
}

// pinned is a command that is kept to one processor; a negative one keeps it nowhere.
func pinned(processor int, command ...string) []string {
	if processor < 0 {
		return command
	}

	return append([]string{"taskset", "-c", strconv.Itoa(processor)}, command...)
}

// footprint tells what a worker and its FFmpeg take at most of memory and of
// the scratch folder, with one 1080p ladder.
func footprint(ctx context.Context, s setting, _ *quiet) (_ []Result, err error) {
	clip, err := clipOf(ctx, s, "camera1080.mp4", 0)
	if err != nil {
		return nil, err
	}
	st, err := startStack(ctx, s, "--pool", "none")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	w, scratch, err := startWorker(ctx, s, st, -1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	watching, stop := context.WithCancel(ctx)
	var memory, disk float64
	var looking sync.WaitGroup
	looking.Go(func() {
		for watching.Err() == nil {
			memory, disk = max(memory, treeBytes(w.PID())), max(disk, folderBytes(scratch))
			wait(watching, 50*time.Millisecond)
		}
	})
	_, _, err = st.run(ctx, clip, &tcoderv1.JobSpec{Preset: "hls-adaptive", Copy: tcoderv1.CopyPolicy_COPY_POLICY_NEVER})
	stop()
	looking.Wait()
	if err != nil {
		return nil, err
	}
	const mebibyte = 1 << 20

	return []Result{
		plain("footprint/memory", memory/mebibyte, "MiB", "resident, worker and FFmpeg with one 1080p ladder, looked at 20 times a second"),
		atMost(64, plain("footprint/scratch", disk/mebibyte, "MiB", "of its encode task, at most")),
	}, nil
}

// treeBytes is the memory of a process and its descendants.
func treeBytes(root int) float64 {
	all, err := processes()
	if err != nil {
		return 0
	}
	sum := 0.0
	for pid := range all {
		for at := pid; at > 0; at = all[at].parent {
			if at == root {
				bytes, err := residentBytes(pid)
				if err == nil { // it may have ended
					sum += bytes
				}

				break
			}
		}
	}

	return sum
}

// folderBytes is what the files below a folder hold.
func folderBytes(dir string) float64 {
	sum := 0.0
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files go while one looks
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			sum += float64(info.Size())
		}

		return nil
	})

	return sum
}
