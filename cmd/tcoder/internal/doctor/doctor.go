// Package doctor looks at what tcoder needs on a computer and says how to fix
// what is missing. It changes nothing but a small object that it writes to each
// bucket and removes again.
package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/server"
	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// status is what a check found.
type status string

const (
	statusOK   status = "ok"
	statusWarn status = "warn" // tcoder runs, but not all of it or not well
	statusFail status = "fail" // tcoder doesn't run
)

// finding is the result of one check.
type finding struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

func ok(name, format string, args ...any) finding {
	return finding{Name: name, Status: statusOK, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, fix, format string, args ...any) finding {
	return finding{Name: name, Status: statusWarn, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func fail(name, fix, format string, args ...any) finding {
	return finding{Name: name, Status: statusFail, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

// doctor is the command with its settings.
type doctor struct {
	*cli.Program

	storage server.Storage
	sandbox server.Sandbox
	keeper  *sandbox.Sandbox // once it was tried out
	listen  string
	data    string
	scratch string
	server  string
	json    bool
}

// Command is `tcoder doctor`.
func Command(program *cli.Program) *cobra.Command {
	d := &doctor{Program: program}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check that this computer has what tcoder needs",
		Long: `Check that this computer has what tcoder needs: FFmpeg and its encoders, Redis,
its sandbox, an object store, clocks, ports and folders. Each line is ok, warn or fail, with
how to fix it. The exit code is 1 if something that is needed fails.

With the flags of 'tcoder serve' it checks that Redis and that object store.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&d.listen, "listen", server.DefaultListen, "address to serve on")
	flags.StringVar(&d.data, "data", ".tcoder", "folder of the data")
	flags.StringVar(&d.scratch, "scratch", "", server.ScratchUsage)
	flags.StringVar(&d.server, "server", "http://"+server.DefaultListen, "address of the server")
	flags.BoolVar(&d.json, "json", false, "print JSON")
	d.storage.Register(cmd)
	d.sandbox.Register(cmd)

	return cmd
}

func (d *doctor) run(ctx context.Context) error {
	ctx, stop := d.Interruptible(ctx)
	defer stop()
	d.storage.ReadSecrets(d.Program)
	var findings []finding
	for _, check := range []func(context.Context) []finding{
		d.checkSandbox, d.checkFFmpeg, d.checkRedis, d.checkStore, d.checkPort, d.checkFolders, d.checkScratch, d.checkServer,
	} {
		found := check(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		findings = append(findings, found...)
		if !d.json {
			d.print(found)
		}
	}
	if d.json {
		if err := d.PrintJSON(map[string][]finding{"checks": findings}); err != nil {
			return err
		}
	}
	for _, f := range findings {
		if f.Status == statusFail {
			return &cli.ShownError{Err: errors.New("something that tcoder needs is missing, see above")}
		}
	}

	return nil
}

func (d *doctor) print(findings []finding) {
	for _, f := range findings {
		d.Printf("%-5s %-14s %s\n", f.Status, f.Name, f.Detail)
		if f.Fix != "" {
			d.Printf("%-5s %-14s fix: %s\n", "", "", f.Fix)
		}
	}
}
