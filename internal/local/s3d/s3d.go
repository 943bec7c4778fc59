// Package s3d is the S3 server that local.S3 runs as a child: versitygw on a
// folder. It has a package of its own because the server is a large import
// that only the binary needs, and because it changes the working directory of
// its process and can run only once in it.
//
// Not durable against the loss of power: writes are atomic but not synced.
// Nothing is public; every request has to be signed.
package s3d

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"

	"github.com/tcoder-dev/tcoder/internal/local"
)

const (
	dirPerm        = 0o700
	maxConnections = 4096
	maxRequests    = 2048
	maxParts       = 10_000
	// copyThresholdBytes is the largest object that CopyObject takes.
	copyThresholdBytes = 5 << 30
	concurrency        = 256
)

// Options are what local.S3 passes on the command line: --dir, --listen and
// --credentials.
type Options struct {
	// Dir is the data folder of local.S3.
	Dir string
	// Listen is host:port with a port other than 0.
	Listen string
	// CredentialsFile is readable by [local.ReadCredentials].
	CredentialsFile string
}

// Run serves until ctx ends. It changes the working directory of the process.
func Run(ctx context.Context, opts Options) error {
	keys, err := local.ReadCredentials(opts.CredentialsFile)
	if err != nil {
		return fmt.Errorf("s3d: %w", err)
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return fmt.Errorf("s3d: data folder: %w", err)
	}
	backend, err := newBackend(dir)
	if err != nil {
		return fmt.Errorf("s3d: %w", err)
	}
	err = embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess:    keys.AccessKeyID,
		RootUserSecret:    keys.SecretAccessKey,
		Region:            "auto",
		Ports:             []string{opts.Listen},
		MaxConnections:    maxConnections,
		MaxRequests:       maxRequests,
		MultipartMaxParts: maxParts,
		HealthPath:        local.HealthPath(keys),
		KeepAlive:         true,
		DisableACLs:       true,
		Quiet:             true,
	})
	if err != nil {
		return fmt.Errorf("s3d: %w", err)
	}
	return nil
}

// newBackend keeps the properties of objects in extended attributes, or in a
// second folder where the file system has none. Data that began with the
// second folder stays with it.
func newBackend(dir string) (*posix.Posix, error) {
	buckets, metadata := filepath.Join(dir, "buckets"), filepath.Join(dir, "metadata")
	if err := os.MkdirAll(buckets, dirPerm); err != nil {
		return nil, fmt.Errorf("create buckets folder: %w", err)
	}
	opts := posix.PosixOpts{NewDirPerm: dirPerm, Concurrency: concurrency, CopyObjectThreshold: copyThresholdBytes}
	_, statErr := os.Stat(metadata)
	if os.IsNotExist(statErr) && (meta.XattrMeta{}).Test(buckets) == nil {
		backend, err := posix.New(buckets, meta.XattrMeta{}, opts)
		if err != nil {
			return nil, fmt.Errorf("open buckets: %w", err)
		}
		return backend, nil
	}
	if err := os.MkdirAll(metadata, dirPerm); err != nil {
		return nil, fmt.Errorf("create metadata folder: %w", err)
	}
	sidecar, err := meta.NewSideCar(metadata)
	if err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	opts.SideCarDir = metadata
	backend, err := posix.New(buckets, sidecar, opts)
	if err != nil {
		return nil, fmt.Errorf("open buckets: %w", err)
	}
	return backend, nil
}
