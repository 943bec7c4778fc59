// Package wrapper becomes another program after it gave up what that one may
// not have.
//
// Its init function does so in every process that was started under its Name.
// It comes first because nearly nothing is imported here: the rest of a large
// program is not initialised for a process that is about to be another, which
// would cost more than all else.
package wrapper

// Name is the name by which the wrapper knows itself.
const Name = "tcoder-sandbox"

// ExitFailed is the exit status, and Prefix the start of standard error, of a
// wrapper that could not become the program.
const (
	ExitFailed = 125
	Prefix     = "tcoder-sandbox: "
)
