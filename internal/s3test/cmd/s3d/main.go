// Command s3d is the S3 server of the tests, the same that the product starts.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tcoder-dev/tcoder/internal/local/s3d"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var opts s3d.Options
	flag.StringVar(&opts.Dir, "dir", "", "data folder")
	flag.StringVar(&opts.Listen, "listen", "", "host:port")
	flag.StringVar(&opts.CredentialsFile, "credentials", "", "credentials file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return s3d.Run(ctx, opts)
}
