package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/client"
	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/doctor"
	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/server"
	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/simulate"
)

// run runs a command line and returns its exit code.
func run(ctx context.Context, program *cli.Program, args []string) int {
	started := false
	root := newRoot(program, &started) //nolint:contextcheck // the commands get ctx when they run
	cli.DescribeEnv(root)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return cli.ExitOK
	}
	var usage *cli.UsageError
	if !started && !errors.As(err, &usage) {
		err = &cli.UsageError{Err: err} // cobra refused the command line
	}
	program.Report(err, wantsJSON(cmd, args))

	return cli.ExitCode(err)
}

// wantsJSON also looks at the bare arguments: they may be what is wrong.
func wantsJSON(cmd *cobra.Command, args []string) bool {
	flag := cmd.Flags().Lookup("json")

	return slices.Contains(args, "--json") || (flag != nil && flag.Value.String() == "true")
}

// newRoot makes the tree of commands. started is set once a command line was
// understood.
func newRoot(program *cli.Program, started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:           "tcoder",
		Short:         "Transcode videos: the server, the worker and the client",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			*started = true

			return program.ApplyEnv(cmd)
		},
	}
	root.SetOut(program.Stdout)
	root.SetErr(program.Stderr)
	root.SetIn(program.Stdin)
	root.AddGroup(
		&cobra.Group{ID: "server", Title: "Run it:"},
		&cobra.Group{ID: "client", Title: "Use it:"},
	)
	addGroup(root, "server", server.Commands(program, buildVersion().String())...)
	addGroup(root, "client", client.Commands(program)...)
	root.AddCommand(doctor.Command(program), simulate.Command(program), versionCommand(program))

	return root
}

func addGroup(root *cobra.Command, id string, commands ...*cobra.Command) {
	for _, command := range commands {
		command.GroupID = id
		root.AddCommand(command)
	}
}
