package wrapper

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// User is who a program runs as.
type User struct {
	// Same means as this process.
	Same     bool
	UID, GID int
}

// Limits are bounds on what a program may use. A zero field bounds nothing.
type Limits struct {
	CPUSeconds   uint64
	AddressBytes uint64
	FileBytes    uint64 // of each file
	OpenFiles    uint64
	Tasks        uint64 // threads of the user
}

// The layers of a sandbox.
const (
	Files   = "files"
	Network = "network"
	Calls   = "system calls"
	Account = "user"
	Bounds  = "limits"
)

// Layer is a layer of the sandbox, and whether this machine has it.
type Layer struct {
	Name   string
	Active bool
	// Detail says what it does here, or why it is missing.
	Detail string
	// Fix says how to get it where it is missing and can be got.
	Fix string
}

// Policy is what the wrapper is told, as the first of its arguments. It holds
// no secret: arguments can be read by anybody on the machine.
type Policy struct {
	Layers []string // those to apply
	User   User
	Parent int      // who starts the wrapper
	Read   []string // folders and files to read
	Run    []string // files to execute
	Dir    string   // the only one to write to; empty: none
	Port   uint16   // the only one to connect to; 0: none
	Limits Limits
	Hurry  bool // it gives way to other processes less than others do
}

// errPolicy is an argument that the wrapper doesn't understand: only this
// program starts it, so it is a bug.
var errPolicy = errors.New("unknown argument")

// The end of the policy in the arguments.
const endOfPolicy = "--"

// Encode returns the arguments of the wrapper before the program and its own.
func (p *Policy) Encode() []string {
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

	add("layer", p.Layers...)
	add("read", p.Read...)
	add("run", p.Run...)

	if p.Dir != "" {
		add("dir", p.Dir)
	}

	if !p.User.Same {
		add("user", fmt.Sprintf("%d:%d", p.User.UID, p.User.GID))
	}

	number("parent", uint64(p.Parent))
	number("port", uint64(p.Port))
	number("cpu", p.Limits.CPUSeconds)
	number("address", p.Limits.AddressBytes)
	number("file", p.Limits.FileBytes)
	number("files", p.Limits.OpenFiles)
	number("tasks", p.Limits.Tasks)

	if p.Hurry {
		add("hurry", "1")
	}

	return append(args, endOfPolicy)
}

// decode also returns the arguments after the policy.
func decode(args []string) (*Policy, []string, error) {
	p := &Policy{User: User{Same: true}}

	for i, arg := range args {
		if arg == endOfPolicy {
			return p, args[i+1:], nil
		}

		key, value, _ := strings.Cut(arg, "=")
		if err := p.set(key, value); err != nil {
			return nil, nil, fmt.Errorf("%w %q", err, arg)
		}
	}

	return nil, nil, fmt.Errorf("%w: no end", errPolicy)
}

func (p *Policy) set(key, value string) error {
	switch key {
	case "layer":
		p.Layers = append(p.Layers, value)

		return nil
	case "read":
		p.Read = append(p.Read, value)

		return nil
	case "run":
		p.Run = append(p.Run, value)

		return nil
	case "dir":
		p.Dir = value

		return nil
	case "user":
		_, err := fmt.Sscanf(value, "%d:%d", &p.User.UID, &p.User.GID)
		p.User.Same = false

		return err
	}

	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return errPolicy
	}

	switch key {
	case "parent":
		p.Parent = int(n)
	case "port":
		p.Port = uint16(n)
	case "cpu":
		p.Limits.CPUSeconds = n
	case "address":
		p.Limits.AddressBytes = n
	case "file":
		p.Limits.FileBytes = n
	case "files":
		p.Limits.OpenFiles = n
	case "tasks":
		p.Limits.Tasks = n
	case "hurry":
		p.Hurry = n == 1
	default:
		return errPolicy
	}

	return nil
}

func (p *Policy) has(layer string) bool { return slices.Contains(p.Layers, layer) }
