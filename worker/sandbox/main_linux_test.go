package sandbox_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// prisonerWord makes this test program the one that is kept in a sandbox.
const prisonerWord = "prisoner"

// prisonerPath is a copy of this test program that every user may run.
var prisonerPath string //nolint:gochecknoglobals // set once, before the tests

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == prisonerWord {
		prisoner(os.Args[2], os.Args[3:])
	}

	dir, err := publicCopy()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func publicCopy() (string, error) {
	dir, err := os.MkdirTemp("", "prisoner-")
	if err != nil {
		return "", err
	}

	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}

	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer self.Close() //nolint:errcheck // only read

	prisonerPath = filepath.Join(dir, "prisoner")

	to, err := os.OpenFile(prisonerPath, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}

	if _, err := io.Copy(to, self); err != nil {
		return "", err
	}

	return dir, to.Close()
}

// prisoner tries one thing and exits: 0 if it worked, 1 with the error if not.
func prisoner(deed string, args []string) {
	if err := deeds()[deed](args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	os.Exit(0)
}

func deeds() map[string]func(args []string) error {
	sockets := func(family, kind, protocol int) func([]string) error {
		return func([]string) error {
			_, err := unix.Socket(family, kind, protocol)

			return err
		}
	}

	return map[string]func(args []string) error{
		"nothing": func([]string) error { return nil },
		"read": func(args []string) error {
			_, err := os.ReadFile(args[0])

			return err
		},
		"write": func(args []string) error { return os.WriteFile(args[0], []byte("x"), 0o600) },
		"mkdir": func(args []string) error { return os.Mkdir(args[0], 0o700) },
		"rename": func(args []string) error {
			if err := os.WriteFile("a", []byte("x"), 0o600); err != nil {
				return err
			}

			return os.Rename("a", args[0])
		},
		"symlink": func(args []string) error { return os.Symlink("/etc/hostname", args[0]) },
		"link":    func(args []string) error { return os.Link(args[1], args[0]) },
		"fifo":    func(args []string) error { return syscall.Mkfifo(args[0], 0o600) },
		"connect": func(args []string) error {
			conn, err := net.Dial("tcp", args[0])
			if err != nil {
				return err
			}

			return conn.Close()
		},
		"listen": func([]string) error {
			_, err := net.Listen("tcp", "127.0.0.1:0")

			return err
		},
		"resolve": func([]string) error {
			_, err := net.LookupHost("example.com")

			return err
		},
		"fast open": func(args []string) error {
			port, err := strconv.Atoi(args[0])
			if err != nil {
				return err
			}

			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}

			return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
		},
		"udp":      sockets(unix.AF_INET, unix.SOCK_DGRAM, 0),
		"raw":      sockets(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		"unix":     sockets(unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"netlink":  sockets(unix.AF_NETLINK, unix.SOCK_RAW, 0),
		"mptcp":    sockets(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP),
		"fork":     func([]string) error { return number(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) },
		"run":      func(args []string) error { return syscall.Exec(args[0], args, nil) },
		"signal":   func([]string) error { return unix.Kill(os.Getppid(), 0) },
		"ptrace":   func([]string) error { return unix.PtraceAttach(os.Getppid()) },
		"unshare":  func([]string) error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"mount":    func([]string) error { return unix.Mount("none", "/", "tmpfs", 0, "") },
		"io_uring": func([]string) error { return number(unix.SYS_IO_URING_SETUP, 1) },
		"bpf":      func([]string) error { return number(unix.SYS_BPF, 0) },
		"keyctl":   func([]string) error { return number(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, 0) },
		"memory":   eat,
		"file":     func([]string) error { return os.WriteFile("large", make([]byte, 1<<20), 0o600) },
		"open files": func([]string) error {
			for range 1000 {
				if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
					return err
				}
			}

			return nil
		},
		"be root": func([]string) error {
			if err := unix.Setresuid(0, 0, 0); err != nil {
				return err
			}

			if os.Getuid() != 0 {
				return unix.EPERM
			}

			return nil
		},
		"capabilities": func([]string) error {
			var data [2]unix.CapUserData

			if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
				return err
			}

			if data[0].Permitted|data[1].Permitted == 0 {
				return unix.EPERM
			}

			return nil
		},
		"environment": func([]string) error {
			if len(os.Environ()) == 0 {
				return os.ErrNotExist
			}

			return nil
		},
	}
}

// number makes a call by its number. Its success is nil.
func number(call uintptr, args ...uintptr) error {
	args = append(args, 0, 0, 0)

	result, _, errno := syscall.RawSyscall(call, args[0], args[1], args[2])
	if call == unix.SYS_CLONE && errno == 0 && result == 0 {
		os.Exit(0) // the child
	}

	if errno != 0 {
		return errno
	}

	return nil
}

// eat reserves addresses until there are no more.
func eat([]string) error {
	for range 1 << 10 {
		if _, err := unix.Mmap(-1, 0, 1<<30, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE); err != nil {
			return err
		}
	}

	return nil
}
