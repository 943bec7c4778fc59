package wrapper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Try in place of a program makes the wrapper try itself out.
const Try = "try"

// BoundsLayer is the layer of limits.
func BoundsLayer() Layer {
	return Layer{Name: Bounds, Active: true, Detail: "processor time, addresses, sizes of files, open files, no core dumps"}
}

// init becomes the wrapper where the process was started as one. It is an
// init function so that every program that runs others in a sandbox, tests
// included, is its own wrapper, and so that the rest of a large program isn't
// initialised for a process that is about to become another one.
func init() { //nolint:gochecknoinits // see above
	if len(os.Args) > 0 && os.Args[0] == Name {
		fmt.Fprint(os.Stderr, Prefix, enter(os.Args[1:]), "\n")
		os.Exit(ExitFailed)
	}
}

// enter applies the policy and becomes the program. It returns only if that
// fails. Init functions keep the main thread: what applies to a thread applies
// to all that follows.
func enter(args []string) error {
	p, program, err := decode(args)
	if err != nil {
		return err
	}

	if len(program) == 0 {
		return errors.New("no program")
	}

	if program[0] == Try {
		report(p.try())

		os.Exit(0)
	}

	for _, step := range p.steps() {
		if !p.has(step.layer) {
			continue
		}

		if err := step.apply(); err != nil {
			return fmt.Errorf("%s: %w", step.layer, err)
		}
	}

	err = syscall.Exec(program[0], program, []string{}) //nolint:gosec // the arguments are those of the parent, who could run the program itself

	return fmt.Errorf("%s: %w", program[0], err)
}

// step applies a layer.
type step struct {
	layer string
	apply func() error
}

// steps are in the order in which each leaves the right to take the next:
// folders are opened while they can be, and the filter of system calls comes
// last.
func (p *Policy) steps() []step {
	var rules landlock

	return []step{
		{Bounds, p.makeWay},
		{Files, func() error { return rules.addFiles(p) }},
		{Network, func() error { return rules.addPort(p.Port) }},
		{Account, p.becomeUser},
		{Files, rules.restrict},
		{Network, rules.restrict},
		{Bounds, p.limit},
		{Calls, filterCalls},
	}
}

// How nice a program is: niceness makes room for the worker's own loops and its
// neighbours, and hurriedly for those alone: beside another program it has most
// of the processor.
const (
	niceness  = 10
	hurriedly = 2
)

// schedBatch is a policy of Linux's scheduler: a thread that wakes up doesn't
// interrupt the one that runs. Encoders' threads wait for each other all the time:
// a quarter fewer switches, and up to 1 % less processor time of a ladder. Who is
// in a hurry does interrupt others.
const schedBatch = 3

// makeWay gives way to other processes: for the processor, and when memory
// ends. A refusal costs no safety.
func (p *Policy) makeWay() error {
	niceness := niceness
	if p.Hurry {
		niceness = hurriedly
	} else {
		var priority int32 // that of this policy is niceness

		_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedBatch, uintptr(unsafe.Pointer(&priority))) //nolint:gosec // how it is called
	}

	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, niceness)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)

	return nil
}

// Options of prctl and of capset.
const (
	prSetDeathSignal      = 1
	prSetNoNewPrivileges  = 38
	prDropBounding        = 24
	lastCapability        = 63
	capabilityVersion3    = 0x20080522
	argumentsOfCapability = 2
)

// becomeUser becomes the user, and gives up all capabilities, for good.
func (p *Policy) becomeUser() error {
	for capability := range uintptr(lastCapability + 1) {
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prDropBounding, capability, 0) // refused without the right to, and beyond the last
	}

	if !p.User.Same {
		// The raw calls change this thread alone, which is the one that goes on.
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return fmt.Errorf("drop groups: %w", errno)
		}

		gid, uid := uintptr(p.User.GID), uintptr(p.User.UID)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, gid, gid, gid); errno != 0 {
			return fmt.Errorf("change the group: %w", errno)
		}

		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			return fmt.Errorf("change the user: %w", errno)
		}
	}

	header := struct {
		version uint32
		pid     int32
	}{version: capabilityVersion3}

	var none [argumentsOfCapability]struct{ effective, permitted, inheritable uint32 }

	if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); errno != 0 { //nolint:gosec // a struct of the kernel
		return fmt.Errorf("drop capabilities: %w", errno)
	}

	// A change of user has undone it.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDeathSignal, uintptr(syscall.SIGKILL), 0); errno != 0 {
		return fmt.Errorf("die with the parent: %w", errno)
	}

	if parent := os.Getppid(); parent != p.Parent {
		return fmt.Errorf("the parent is gone, this is %s's child", strconv.Itoa(parent))
	}

	return nil
}

// keepPrivileges makes set-uid bits worthless, which the kernel demands before
// it takes restrictions from anybody.
func keepPrivileges() error {
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivileges, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("no new privileges: %w", errno)
	}

	return nil
}

// limitTasks is RLIMIT_NPROC, which package syscall leaves out.
const limitTasks = 6

// limit sets the resource limits.
func (p *Policy) limit() error {
	const grace = 5 // seconds between SIGXCPU, which tells the cause, and SIGKILL

	set := func(resource int, soft, hard uint64) error {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(resource, &now); err != nil {
			return fmt.Errorf("limit %d: %w", resource, err)
		}

		// What is tighter already stays.
		limit := syscall.Rlimit{Cur: min(soft, now.Cur), Max: min(hard, now.Max)}
		if err := syscall.Setrlimit(resource, &limit); err != nil {
			return fmt.Errorf("limit %d: %w", resource, err)
		}

		return nil
	}
	bound := func(resource int, value uint64) error {
		if value == 0 {
			return nil
		}

		return set(resource, value, value)
	}

	errs := []error{
		set(syscall.RLIMIT_CORE, 0, 0),
		bound(syscall.RLIMIT_NOFILE, p.Limits.OpenFiles),
		bound(limitTasks, p.Limits.Tasks),
	}

	if p.Limits.CPUSeconds > 0 {
		errs = append(errs, set(syscall.RLIMIT_CPU, p.Limits.CPUSeconds, p.Limits.CPUSeconds+grace))
	}

	if p.Dir == "" {
		errs = append(errs, set(syscall.RLIMIT_FSIZE, 0, 0))
	} else {
		errs = append(errs, bound(syscall.RLIMIT_FSIZE, p.Limits.FileBytes))
	}

	// Last, because this program may have more addresses than its successor.
	return errors.Join(append(errs, bound(syscall.RLIMIT_AS, p.Limits.AddressBytes))...)
}
