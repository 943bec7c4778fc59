package pipeline

import (
	"fmt"
	"runtime/debug"
)

// Contain calls f and makes an error of a panic: one job, whatever its source is
// or is stored of it, doesn't end the process that all share.
func Contain(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()

	return f()
}
