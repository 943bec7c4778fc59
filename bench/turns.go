package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// turnLength is long beside the milliseconds that stopping all processes of a
// contender takes, and short beside what they have to do.
const turnLength = time.Second

// turn is a command that takes turns with others.
type turn struct {
	args    []string // the program first
	dir     string   // that it runs in
	servers []int    // processes that work for it, with their descendants

	cmd    *exec.Cmd
	out    bytes.Buffer
	log    bytes.Buffer
	before time.Duration // processor time of the servers
	took   cost
	ended  chan struct{}
	err    error // set when ended is closed
}

// takeTurns runs commands to their ends, each for a moment while the others are
// stopped with all that works for them. So each has the machine to itself, and
// all meet the same pace of it: that of a rented one changes by a tenth within
// seconds. The wall time of a cost is that of a command's turns.
func takeTurns(ctx context.Context, all []*turn) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for _, t := range all {
			err = errors.Join(err, t.leave())
		}
	}()
	left := slices.Clone(all)
	for len(left) > 0 {
		t := left[0]
		left = left[1:]
		over, err := t.take(ctx, len(left) > 0)
		if err != nil {
			return err
		}
		if !over {
			left = append(left, t)
		}
	}

	return nil
}

// take runs the command for a turn, or to its end if nobody else waits, and
// reports whether it has ended.
func (t *turn) take(ctx context.Context, othersWait bool) (over bool, err error) {
	began := time.Now()
	defer func() { t.took.wall += time.Since(began) }()
	if t.cmd == nil {
		err = t.start(ctx)
	} else {
		err = t.tell(syscall.SIGCONT)
	}
	if err != nil {
		return false, err
	}
	var timeUp <-chan time.Time
	if othersWait {
		timeUp = time.After(turnLength)
	}
	select {
	case <-t.ended:
		return true, t.sum()
	case <-timeUp:
		return false, t.tell(syscall.SIGSTOP)
	}
}

func (t *turn) start(ctx context.Context) (err error) {
	if t.before, err = t.serversTime(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, t.args[0], t.args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.dir, &t.out, &t.log
	// What it starts ends with it; a stopped process too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	t.cmd, t.ended = cmd, make(chan struct{})
	go func() {
		defer close(t.ended)
		t.err = cmd.Wait()
	}()

	return nil
}

// sum adds up the processor time of a command that has ended.
func (t *turn) sum() error {
	if t.err != nil {
		return fmt.Errorf("%s: %w\n%s%s", filepath.Base(t.args[0]), t.err, &t.out, &t.log)
	}
	after, err := t.serversTime()
	t.took.cpu = t.cmd.ProcessState.UserTime() + t.cmd.ProcessState.SystemTime() + after - t.before

	return err
}

func (t *turn) serversTime() (time.Duration, error) {
	var all time.Duration
	for _, pid := range t.servers {
		took, err := treeCPU(pid)
		if err != nil {
			return 0, err
		}
		all += took
	}

	return all, nil
}

// leave waits for the end of a command whose context is done, and lets its servers go on.
func (t *turn) leave() error {
	if t.cmd == nil {
		return nil
	}
	<-t.ended

	return t.tell(syscall.SIGCONT)
}

// owns reports whether a process is the command, or works for it.
func (t *turn) owns(all map[int]process, pid int) bool {
	return slices.ContainsFunc(append([]int{t.cmd.Process.Pid}, t.servers...), func(root int) bool { return descends(all, pid, root) })
}

// tell stops all processes of the command and its servers, or lets them go on.
func (t *turn) tell(signal syscall.Signal) error {
	const patience = time.Minute // with what waits for a slow disk
	// What a process starts before it stops is found when all are looked at again.
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(time.Millisecond) {
		all, err := processes()
		if err != nil {
			return err
		}
		done := true
		for pid, p := range all {
			if p.state == 'Z' || (p.state == 'T') == (signal == syscall.SIGSTOP) || !t.owns(all, pid) {
				continue
			}
			done = false
			_ = syscall.Kill(pid, signal) // it may have ended meanwhile
		}
		if done {
			return nil
		}
	}

	return errors.New("processes don't stop, or don't go on")
}
