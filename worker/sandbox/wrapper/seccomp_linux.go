package wrapper

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// instruction is one of classic BPF.
type instruction struct {
	code   uint16
	yes    uint8 // how many to leave out if it is so
	no     uint8 // and if not
	number uint32
}

// The instructions that a filter is made of.
const (
	opLoad  = 0x20 // a word of the call
	opAnd   = 0x54
	opEqual = 0x15
	opLeast = 0x35 // at least
	opAny   = 0x45 // any bit
	opEnd   = 0x06
)

// What a filter says of a call.
const (
	callAllowed uint32 = 0x7fff0000
	callFails   uint32 = 0x00050000 // with the error in the lower half
	callKills   uint32 = 0x80000000
)

// Where the words of a call are. Arguments are read by their lower halves,
// which is all that the kernel looks at in those that are checked.
const (
	wordNumber       = 0
	wordArchitecture = 4
	wordArguments    = 16
	argumentSize     = 8
)

func ends(verdict uint32) instruction { return instruction{code: opEnd, number: verdict} }

func refused(errno syscall.Errno) instruction { return ends(callFails | uint32(errno)) }

func argument(n uint32) instruction {
	return instruction{code: opLoad, number: wordArguments + argumentSize*n}
}

// oneOf refuses a call whose argument, under a mask, is none of values.
func oneOf(n, mask uint32, values ...uint32) []instruction {
	check := []instruction{argument(n), {code: opAnd, number: mask}}
	for i, value := range values {
		check = append(check, instruction{code: opEqual, yes: uint8(len(values) - i), number: value})
	}

	return append(check, refused(syscall.EPERM))
}

// noneOf refuses a call whose argument has any of the bits.
func noneOf(n, bits uint32) []instruction {
	return []instruction{argument(n), {code: opAny, no: 1, number: bits}, refused(syscall.EPERM)}
}

// when is what happens to one call. Every path through body ends.
func when(call uint32, body ...[]instruction) []instruction {
	var all []instruction
	for _, part := range body {
		all = append(all, part...)
	}

	all = append(all, ends(callAllowed))

	return append([]instruction{{code: opEqual, no: uint8(len(all)), number: call}}, all...)
}

const anyBit = ^uint32(0)

// Arguments of calls.
const (
	streamSocket   = 1
	kindOfSocket   = 0xf
	protocolTCP    = 6
	fastOpen       = 0x20000000 // connects without asking
	cloneThread    = 0x00010000
	cloneNamespace = 0x7e020080
)

// callFilter is the filter for a process. It names what FFmpeg never needs and
// who takes it over would like: processes, sockets that aren't TCP, other
// processes' memory and signals, namespaces and mounts, links and pipes that
// this program might follow, and parts of the kernel that are known for their
// holes.
func callFilter(calls callNumbers, pid int) []instruction {
	filter := []instruction{
		{code: opLoad, number: wordArchitecture},
		{code: opEqual, yes: 1, number: calls.architecture},
		ends(callKills),
		{code: opLoad, number: wordNumber},
	}

	if calls.foreign > 0 { // another ABI of the same processor
		filter = append(filter, instruction{code: opLeast, no: 1, number: calls.foreign}, refused(syscall.ENOSYS))
	}

	for _, call := range calls.denied {
		filter = append(filter, instruction{code: opEqual, no: 1, number: call}, refused(syscall.EPERM))
	}

	own := uint32(pid)

	for _, part := range [][]instruction{
		// The C library makes threads by clone where there is no clone3, whose
		// flags can't be seen from here.
		{{code: opEqual, no: 1, number: callClone3}, refused(syscall.ENOSYS)},
		when(calls.clone, oneOf(0, cloneThread, cloneThread), noneOf(0, cloneNamespace)),
		when(calls.socket,
			oneOf(0, anyBit, syscall.AF_INET, syscall.AF_INET6), oneOf(1, kindOfSocket, streamSocket), oneOf(2, anyBit, 0, protocolTCP)),
		when(calls.sendTo, noneOf(3, fastOpen)),
		when(calls.sendMessage, noneOf(2, fastOpen)),
		when(calls.sendMessages, noneOf(3, fastOpen)),
		when(calls.kill, oneOf(0, anyBit, own)),
		when(calls.killThread, oneOf(0, anyBit, own)),
		when(calls.limit, oneOf(0, anyBit, 0, own)),
	} {
		filter = append(filter, part...)
	}

	return append(filter, ends(callAllowed))
}

// callClone3 is the same on all architectures, as are all younger calls.
const callClone3 = 435

// deniedEverywhere are calls with one number on all architectures.
//
//nolint:gochecknoglobals // a table
var deniedEverywhere = []uint32{
	424, 434, 438, 448, // pidfd_send_signal, pidfd_open, pidfd_getfd, process_mrelease
	425, 426, 427, // io_uring_setup, io_uring_enter, io_uring_register: calls that no filter sees
	428, 429, 430, 431, 432, 433, 442, 467, // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr, open_tree_attr
	440, 443, // process_madvise, quotactl_fd
}

// callNumbers are the numbers of calls on an architecture.
type callNumbers struct {
	architecture uint32
	// foreign is from where numbers are those of another ABI; 0: nowhere.
	foreign uint32
	denied  []uint32

	clone, socket, sendTo, sendMessage, sendMessages, kill, killThread, limit uint32
	// seccomp is the call that applies a filter.
	seccomp uintptr
}

// filterCalls applies the filter to this thread and what it becomes.
func filterCalls() error {
	calls, known := numbersOfCalls()
	if !known {
		return fmt.Errorf("not made for %s", runtime.GOARCH)
	}

	if err := keepPrivileges(); err != nil {
		return err
	}

	const setFilter = 1

	filter := callFilter(calls, os.Getpid())
	program := struct {
		length uint16
		filter *instruction
	}{uint16(len(filter)), &filter[0]}

	_, _, errno := syscall.RawSyscall(calls.seccomp, setFilter, 0, uintptr(unsafe.Pointer(&program))) //nolint:gosec // a struct of the kernel
	runtime.KeepAlive(filter)

	if errno != 0 {
		return fmt.Errorf("apply the filter: %w", errno)
	}

	return nil
}
