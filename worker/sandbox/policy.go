package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	nobody = 65534
	root   = 0
)

// parseUser reads Config.User.
func parseUser(text string) (user, error) {
	switch text {
	case UserAuto, "":
		if os.Geteuid() == root {
			return user{uid: nobody, gid: nobody}, nil
		}

		return user{same: true}, nil
	case UserSame:
		return user{same: true}, nil
	}

	first, second, both := strings.Cut(text, ":")
	uid, errUID := strconv.ParseUint(first, 10, 31)
	gid, errGID := strconv.ParseUint(second, 10, 31)

	if !both || errUID != nil || errGID != nil {
		return user{}, fmt.Errorf("%w: user %q is none of %s, %s and uid:gid", ErrSettings, text, UserAuto, UserSame)
	}

	return user{uid: int(uid), gid: int(gid)}, nil
}

// policy is what the wrapper is told, as the first of its arguments. It holds
// no secret: arguments can be read by anybody on the machine.
type policy struct {
	layers []string // those to apply
	user   user
	parent int      // who starts the wrapper
	read   []string // folders and files to read
	run    []string // files to execute
	dir    string   // to write to
	port   uint16
	limits Limits
	tasks  uint64 // threads of the user
}

// errPolicy is an argument that the wrapper doesn't understand: only this
// program starts it, so it is a bug.
var errPolicy = errors.New("unknown argument")

// The end of the policy in the arguments.
const endOfPolicy = "--"

func (p policy) encode() []string {
	var args []string

	add := func(key string, values ...string) {
		for _, value := range values {
			args = append(args, key+"="+value)
		}
	}
	number := func(key string, n uint64) {
		if n > 0 {
			add(key, strconv.FormatUint(n, 10))
		}
	}

	add("layer", p.layers...)
	add("read", p.read...)
	add("run", p.run...)

	if p.dir != "" {
		add("dir", p.dir)
	}

	if !p.user.same {
		add("user", fmt.Sprintf("%d:%d", p.user.uid, p.user.gid))
	}

	number("parent", uint64(p.parent))
	number("port", uint64(p.port))
	number("cpu", p.limits.CPUSeconds)
	number("address", p.limits.AddressBytes)
	number("file", p.limits.FileBytes)
	number("files", p.limits.OpenFiles)
	number("tasks", p.tasks)

	return append(args, endOfPolicy)
}

// decodePolicy also returns the arguments after the policy.
func decodePolicy(args []string) (policy, []string, error) {
	p := policy{user: user{same: true}}

	for i, arg := range args {
		if arg == endOfPolicy {
			return p, args[i+1:], nil
		}

		key, value, _ := strings.Cut(arg, "=")
		if err := p.set(key, value); err != nil {
			return policy{}, nil, fmt.Errorf("%w %q", err, arg)
		}
	}

	return policy{}, nil, fmt.Errorf("%w: no end", errPolicy)
}

func (p *policy) set(key, value string) error {
	switch key {
	case "layer":
		p.layers = append(p.layers, value)

		return nil
	case "read":
		p.read = append(p.read, value)

		return nil
	case "run":
		p.run = append(p.run, value)

		return nil
	case "dir":
		p.dir = value

		return nil
	case "user":
		var err error

		p.user, err = parseUser(value)

		return err
	}

	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return errPolicy
	}

	switch key {
	case "parent":
		p.parent = int(n)
	case "port":
		p.port = uint16(n)
	case "cpu":
		p.limits.CPUSeconds = n
	case "address":
		p.limits.AddressBytes = n
	case "file":
		p.limits.FileBytes = n
	case "files":
		p.limits.OpenFiles = n
	case "tasks":
		p.tasks = n
	default:
		return errPolicy
	}

	return nil
}

func (p policy) has(layer string) bool {
	for _, name := range p.layers {
		if name == layer {
			return true
		}
	}

	return false
}
