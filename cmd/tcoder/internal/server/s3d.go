package server

import (
	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/local/s3d"
)

// newS3Command is what local.S3 runs as its child.
func newS3Command(program *cli.Program) *cobra.Command {
	var opts s3d.Options
	cmd := &cobra.Command{
		Use: "s3d", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := program.Interruptible(cmd.Context())
			defer stop()

			return s3d.Run(ctx, opts)
		},
	}
	cmd.Flags().StringVar(&opts.Dir, "dir", "", "data folder")
	cmd.Flags().StringVar(&opts.Listen, "listen", "", "host:port")
	cmd.Flags().StringVar(&opts.CredentialsFile, "credentials", "", "file with the keys")

	return cmd
}
