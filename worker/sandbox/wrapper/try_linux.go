package wrapper

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// TryPort is the port that a try may connect to. Nothing needs to listen.
const TryPort = 1

// try applies each layer that can be applied, and then does what it forbids.
func (p *Policy) try() []Layer {
	failed := map[string]error{}

	for _, step := range p.steps() {
		if failed[step.layer] == nil {
			failed[step.layer] = step.apply()
		}
	}

	version, _ := landlockVersion()
	files := Layer{
		Name: Files, Detail: fmt.Sprintf("Landlock %d: libraries to read, one folder to write", version),
		Fix: fixLandlock(failed[Files]),
	}
	network := Layer{
		Name: Network, Detail: fmt.Sprintf("Landlock %d: connections to one port", version),
		Fix: fixLandlock(failed[Network]),
	}

	if version > 0 && version < versionNetwork {
		network.Fix = "Linux 6.7 or newer"
	}

	calls := Layer{Name: Calls, Detail: "seccomp: TCP alone, no processes, no other process's memory", Fix: "a kernel with CONFIG_SECCOMP_FILTER, on amd64 or arm64"}
	user := Layer{Name: Account, Detail: fmt.Sprintf("runs as user %d, without capabilities", os.Geteuid()), Fix: "start the worker as root to let it change the user, or as a user without rights"}

	layers := []Layer{
		files.judge(failed[Files], opens("/etc/passwd"), opens("/")),
		network.judge(failed[Network], connects(TryPort+1)),
		calls.judge(failed[Calls], makesSocket(syscall.AF_UNIX, syscall.SOCK_STREAM), makesSocket(syscall.AF_INET, syscall.SOCK_DGRAM)),
		user.judge(failed[Account], p.isOther()),
		BoundsLayer().judge(failed[Bounds]),
	}

	if layers[1].Active && connects(TryPort) != nil {
		layers[1] = Layer{Name: Network, Detail: "Landlock forbids the port that it should allow", Fix: network.Fix}
	}

	return layers
}

// judge is the layer as it turned out: active if it was applied and refuses
// what was tried.
func (l Layer) judge(failed error, refusals ...error) Layer {
	for _, refusal := range refusals {
		if failed == nil && refusal == nil {
			failed = errors.New("it was applied and has no effect")
		}
	}

	if failed != nil {
		l.Detail = failed.Error()

		return l
	}

	l.Active, l.Fix = true, ""

	return l
}

// fixLandlock says how to get Landlock, by the kernel's error.
func fixLandlock(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSYS):
		return "Linux 6.7 or newer with CONFIG_SECURITY_LANDLOCK"
	case errors.Is(err, syscall.EOPNOTSUPP):
		return "add landlock to lsm= on the kernel's command line"
	default:
		return "allow the landlock calls in the container's seccomp profile, and Linux 6.7 or newer"
	}
}

// opens tries to read a file and returns how that was refused; nil: it was not.
func opens(path string) error {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		return syscall.Close(fd)
	}

	return refusal(err)
}

// connects tries to connect to a port of this machine where nothing listens.
func connects(port int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd) //nolint:errcheck // a try

	return refusal(syscall.Connect(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
}

func makesSocket(family, kind int) error {
	fd, err := syscall.Socket(family, kind|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		return syscall.Close(fd)
	}

	return refusal(err)
}

// isOther returns nil if the user didn't change as it should have.
func (p *Policy) isOther() error {
	if !p.User.Same && os.Geteuid() != p.User.UID {
		return nil
	}

	return syscall.EPERM
}

// refusal is err if it is a refusal, and nil if the call was let through and
// failed on its own.
func refusal(err error) error {
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
		return err
	}

	return nil
}

// report writes layers for try to read.
func report(layers []Layer) {
	clean := strings.NewReplacer("\t", " ", "\n", " ")

	for _, l := range layers {
		fmt.Fprintf(os.Stdout, "%s\t%t\t%s\t%s\n", l.Name, l.Active, clean.Replace(l.Detail), clean.Replace(l.Fix))
	}
}
