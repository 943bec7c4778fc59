package wrapper

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"unsafe"
)

// The calls of Landlock, the same on all architectures.
const (
	callCreateRuleset = 444
	callAddRule       = 445
	callRestrictSelf  = 446
)

// Flags and kinds of rules.
const (
	askForVersion = 1
	rulePath      = 1
	rulePort      = 2
)

// Versions of Landlock, by what they brought.
const (
	versionRefer    = 2
	versionTruncate = 3
	versionNetwork  = 4
	versionDevices  = 5
	versionScopes   = 6
)

// Rights to files.
const (
	mayExecute    uint64 = 1 << 0
	mayWrite      uint64 = 1 << 1
	mayRead       uint64 = 1 << 2
	mayReadDir    uint64 = 1 << 3
	mayRemoveDir  uint64 = 1 << 4
	mayRemoveFile uint64 = 1 << 5
	mayMakeDir    uint64 = 1 << 7
	mayMakeFile   uint64 = 1 << 8
	mayRefer      uint64 = 1 << 13
	mayTruncate   uint64 = 1 << 14

	allFiles    uint64 = 1<<13 - 1 // of the first version
	mayControls uint64 = 1 << 15   // of devices
)

// Rights to ports, and what reaches beyond the sandbox otherwise: abstract
// Unix sockets and signals.
const (
	mayBind    uint64 = 1 << 0
	mayConnect uint64 = 1 << 1
	allPorts          = mayBind | mayConnect
	allScopes  uint64 = 3
)

// landlock collects rules and applies them once. Links, devices, sockets and
// pipes can't be made at all: whoever reads the folder afterwards follows
// none.
type landlock struct {
	files []rule
	ports bool
	port  uint16
	done  bool
}

// rule is what may be done below an open file.
type rule struct {
	fd     int
	rights uint64
	isDir  bool
}

// landlockVersion asks the kernel.
func landlockVersion() (int, error) {
	version, _, errno := syscall.Syscall(callCreateRuleset, 0, 0, askForVersion)
	if errno != 0 {
		return 0, errno
	}

	return int(version), nil
}

// addFiles opens what the policy allows. What isn't there is left out.
func (l *landlock) addFiles(p *Policy) error {
	l.files = []rule{} // nil means that files aren't restricted

	for _, path := range p.Read {
		if err := l.addPath(path, mayRead|mayReadDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	for _, path := range p.Run {
		if err := l.addPath(path, mayRead|mayExecute); err != nil {
			return err
		}
	}

	if err := l.addPath("/dev/null", mayRead|mayWrite); err != nil {
		return err
	}

	if p.Dir == "" {
		return nil
	}

	return l.addPath(p.Dir, mayRead|mayReadDir|mayWrite|mayTruncate|mayMakeFile|mayMakeDir|mayRemoveFile|mayRemoveDir|mayRefer)
}

func (l *landlock) addPath(path string, rights uint64) error {
	const onlyPath = 0x200000 // O_PATH

	fd, err := syscall.Open(path, onlyPath|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}

	var info syscall.Stat_t
	if err := syscall.Fstat(fd, &info); err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}

	l.files = append(l.files, rule{fd: fd, rights: rights, isDir: info.Mode&syscall.S_IFMT == syscall.S_IFDIR})

	return nil
}

func (l *landlock) addPort(port uint16) error {
	version, err := landlockVersion()
	if err != nil {
		return err
	}

	if version < versionNetwork {
		return fmt.Errorf("Landlock %d knows no ports", version) //nolint:staticcheck // a name
	}

	l.ports, l.port = true, port

	return nil
}

// restrict applies the rules to this thread and what it becomes.
func (l *landlock) restrict() error {
	if l.done {
		return nil
	}

	version, err := landlockVersion()
	if err != nil {
		return err
	}

	if err := keepPrivileges(); err != nil {
		return err
	}

	var handled struct{ files, ports, scopes uint64 }

	size := unsafe.Sizeof(handled.files)

	if l.files != nil {
		handled.files = filesOf(version)
	}

	if version >= versionNetwork {
		size += unsafe.Sizeof(handled.ports)

		if l.ports {
			handled.ports = allPorts
		}
	}

	if version >= versionScopes {
		size += unsafe.Sizeof(handled.scopes)
		handled.scopes = allScopes
	}

	ruleset, _, errno := syscall.Syscall(callCreateRuleset, uintptr(unsafe.Pointer(&handled)), size, 0) //nolint:gosec // a struct of the kernel
	if errno != 0 {
		return fmt.Errorf("make rules: %w", errno)
	}

	if err := l.addRules(ruleset, handled.files); err != nil {
		return err
	}

	if _, _, errno := syscall.Syscall(callRestrictSelf, ruleset, 0, 0); errno != 0 {
		return fmt.Errorf("apply rules: %w", errno)
	}

	l.done = true

	return nil
}

func (l *landlock) addRules(ruleset uintptr, handled uint64) error {
	const ofFiles = mayExecute | mayWrite | mayRead | mayTruncate // what can be allowed for what is no folder

	for _, r := range l.files {
		rights := r.rights & handled
		if !r.isDir {
			rights &= ofFiles
		}

		// The kernel's struct is packed: 8 bytes and 4.
		below := struct {
			rights uint64
			fd     int32
		}{rights, int32(r.fd)}

		if _, _, errno := syscall.Syscall6(callAddRule, ruleset, rulePath, uintptr(unsafe.Pointer(&below)), 0, 0, 0); errno != 0 { //nolint:gosec // a struct of the kernel
			return fmt.Errorf("add a rule: %w", errno)
		}

		_ = syscall.Close(r.fd)
	}

	if !l.ports || l.port == 0 {
		return nil
	}

	to := struct{ rights, port uint64 }{mayConnect, uint64(l.port)}
	if _, _, errno := syscall.Syscall6(callAddRule, ruleset, rulePort, uintptr(unsafe.Pointer(&to)), 0, 0, 0); errno != 0 { //nolint:gosec // a struct of the kernel
		return fmt.Errorf("add a port: %w", errno)
	}

	return nil
}

// filesOf are the rights to files that a version of Landlock knows.
func filesOf(version int) uint64 {
	rights := allFiles
	if version >= versionRefer {
		rights |= mayRefer
	}

	if version >= versionTruncate {
		rights |= mayTruncate
	}

	if version >= versionDevices {
		rights |= mayControls
	}

	return rights
}
