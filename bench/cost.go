package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// cost is what a run took.
type cost struct {
	wall time.Duration
	cpu  time.Duration // user and system, of every process of the run
}

// ticksPerSecond is the unit of /proc/PID/stat on Linux, whatever the kernel's own tick.
const ticksPerSecond = 100

// command runs a program to its end and returns what it took.
func command(ctx context.Context, name string, args ...string) (cost, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, out)
	}

	return cost{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// treeCPU returns the processor time of a live process, its live descendants,
// and all descendants of theirs that have ended and were waited for.
func treeCPU(root int) (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("read /proc: %w", err)
	}
	parents := map[int]int{}
	ticks := map[int]int64{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// The name is in parentheses and may hold spaces: fields are counted behind it.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 15 {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		parents[pid], _ = strconv.Atoi(fields[1])
		for _, field := range fields[11:15] { // utime stime cutime cstime
			n, _ := strconv.ParseInt(field, 10, 64)
			ticks[pid] += n
		}
	}
	var sum int64
	for pid := range parents {
		for at := pid; at > 0; at = parents[at] {
			if at == root {
				sum += ticks[pid]

				break
			}
		}
	}

	return time.Duration(sum) * time.Second / ticksPerSecond, nil
}

// median returns the middle of several figures.
func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}

	return sorted[len(sorted)/2]
}
