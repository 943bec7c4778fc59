package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// ticksPerSecond is the unit of /proc on Linux, whatever the kernel's own tick.
	ticksPerSecond = 100
	// kernelThread is the flag of a process that is the kernel's own.
	kernelThread = 0x00200000
)

// process is a line of /proc/PID/stat.
type process struct {
	state  byte // such as T: stopped, Z: ended and not waited for
	parent int
	kernel bool
	ticks  int64 // user and system, with that of its ended children
}

// processes reads all that run now.
func processes() (map[int]process, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	all := make(map[int]process, len(stats))
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
		var p process
		p.state = fields[0][0]
		p.parent, _ = strconv.Atoi(fields[1])
		flags, _ := strconv.ParseUint(fields[6], 10, 64)
		p.kernel = flags&kernelThread != 0
		for _, field := range fields[11:15] { // utime stime cutime cstime
			n, _ := strconv.ParseInt(field, 10, 64)
			p.ticks += n
		}
		all[pid] = p
	}
	if len(all) == 0 {
		return nil, errors.New("/proc shows no process: the benchmarks need Linux")
	}

	return all, nil
}

// treeTicks sums up a live process, its live descendants, and all descendants
// of theirs that have ended and were waited for.
func treeTicks(all map[int]process, root int) int64 {
	var sum int64
	for pid, p := range all {
		if descends(all, pid, root) {
			sum += p.ticks
		}
	}

	return sum
}

// descends reports whether a process is another one or a descendant of it.
func descends(all map[int]process, pid, root int) bool {
	for at := pid; at > 0; at = all[at].parent {
		if at == root {
			return true
		}
	}

	return false
}

// treeCPU is the processor time of a process and its descendants.
func treeCPU(root int) (time.Duration, error) {
	all, err := processes()
	if err != nil {
		return 0, err
	}

	return time.Duration(treeTicks(all, root)) * time.Second / ticksPerSecond, nil
}

// usedCPU is the processor time of this process, or of those of its children
// that have ended: syscall.RUSAGE_SELF or RUSAGE_CHILDREN.
func usedCPU(who int) (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(who, &usage); err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}

	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// residentBytes is the memory that a process has.
func residentBytes(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("resident memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		value, found := strings.CutPrefix(line, "VmRSS:")
		if !found {
			continue
		}
		kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return 0, fmt.Errorf("resident memory: %w", err)
		}

		return kilobytes * 1024, nil
	}

	return 0, errors.New("resident memory: /proc doesn't tell")
}

// foreign is what the machine did for others since it was made.
type foreign struct {
	start time.Time
	busy  int64 // ticks of all processors
	ours  int64 // of this process, its descendants, and the kernel's threads
}

// watchForeign begins to watch what other processes use.
func watchForeign() (foreign, error) {
	f := foreign{start: time.Now()}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return f, fmt.Errorf("read /proc: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return f, errors.New("/proc/stat has no line of processors")
	}
	for _, at := range []int{1, 2, 3, 6, 7, 8} { // user nice system irq softirq steal
		n, err := strconv.ParseInt(fields[at], 10, 64)
		if err != nil {
			return f, fmt.Errorf("read /proc/stat: %w", err)
		}
		f.busy += n
	}
	all, err := processes()
	if err != nil {
		return f, err
	}
	f.ours = treeTicks(all, os.Getpid())
	for _, p := range all {
		if p.kernel {
			f.ours += p.ticks // they write what we write
		}
	}

	return f, nil
}

// cores is how much of a core others have used since; what a hypervisor took counts as theirs.
func (f foreign) cores() (float64, error) {
	now, err := watchForeign()
	if err != nil {
		return 0, err
	}
	others := float64((now.busy-f.busy)-(now.ours-f.ours)) / ticksPerSecond

	return max(0, others) / now.start.Sub(f.start).Seconds(), nil
}
