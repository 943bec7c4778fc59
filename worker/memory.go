package worker

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// totalMemory is how much memory there is: the machine's, or the container's if
// that has less. 0 if nothing tells.
func totalMemory() uint64 {
	total := machineMemory("MemTotal")

	// The second is where the first version of cgroups has it.
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if limit, limited := readBytes(path); limited && total > 0 {
			total = min(total, limit)
		}
	}

	return total
}

// freeMemory is how much memory there is for files: the machine's, or the
// container's if that has less. The kernel's estimate is of what can be taken
// without swapping.
func freeMemory() uint64 {
	free := machineMemory("MemAvailable")

	limit, limited := readBytes("/sys/fs/cgroup/memory.max")
	if used, ok := readBytes("/sys/fs/cgroup/memory.current"); ok && limited {
		free = min(free, limit-min(limit, used))
	}

	return free
}

// machineMemory is what the kernel says of the machine's memory, 0 if nothing.
func machineMemory(name string) uint64 {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer file.Close() //nolint:errcheck // only read

	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kib uint64
		if _, err := fmt.Sscanf(lines.Text(), name+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}

	return 0
}

func readBytes(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}

	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64) // or "max"

	return n, err == nil
}
