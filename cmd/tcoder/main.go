// Command tcoder is the server, the worker and the client in one binary. Only
// it and its internal packages read flags and the environment.
package main

import (
	"context"
	"os"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
)

func main() {
	os.Exit(run(context.Background(), cli.Real(), os.Args[1:]))
}
