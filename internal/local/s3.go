package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	s3StartAttempts = 5
	s3StopTimeout   = 5 * time.Second
	s3CheckTimeout  = 2 * time.Second
)

// S3Config says where an S3 server keeps its data and how it is started.
type S3Config struct {
	// Dir is the data folder, created if missing. One server at a time.
	Dir string
	// Command is the program and its leading arguments, such as the own binary
	// and "s3d". It is given --dir, --listen and --credentials and has to run
	// s3d.Run with them until SIGTERM.
	Command []string
	// Listen is a fixed host:port. Empty means a port of 127.0.0.1, the same
	// as at the last start if it is still free, so that URLs signed before a
	// restart stay good.
	Listen string
	Log    *slog.Logger
}

// S3 is an S3 server child. Its region is "auto" and it wants path-style
// requests.
type S3 struct {
	*Process
	cfg     S3Config
	address atomic.Pointer[string]
	keys    atomic.Pointer[Credentials]
	retried bool // only touched by the goroutine in Run
}

// NewS3 checks the paths and starts nothing.
func NewS3(cfg S3Config) (*S3, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("s3 data folder: %w", err)
	}
	cfg.Dir = dir
	if len(cfg.Command) == 0 {
		return nil, errors.New("s3: no command given")
	}
	s := &S3{cfg: cfg}
	attempts := s3StartAttempts
	if cfg.Listen != "" {
		attempts = 1
	}
	s.Process = NewProcess(ProcessConfig{
		Name:          "s3",
		Command:       s.command,
		Check:         s.check,
		LockFile:      filepath.Join(dir, "server.lock"),
		StartAttempts: attempts,
		StopTimeout:   s3StopTimeout,
		Log:           cfg.Log,
	})
	return s, nil
}

// Endpoint is the base URL, valid once Ready is closed.
func (s *S3) Endpoint() string {
	if address := s.address.Load(); address != nil {
		return "http://" + *address
	}
	return ""
}

// Credentials are the server's keys, made at the first start on this data
// folder. Valid once Ready is closed.
func (s *S3) Credentials() Credentials {
	if keys := s.keys.Load(); keys != nil {
		return *keys
	}
	return Credentials{}
}

func (s *S3) command(ctx context.Context) (*exec.Cmd, error) {
	if err := os.MkdirAll(s.cfg.Dir, dirPerm); err != nil {
		return nil, fmt.Errorf("create s3 data folder: %w", err)
	}
	credentialsFile := filepath.Join(s.cfg.Dir, "credentials.json")
	keys, err := ensureCredentials(credentialsFile)
	if err != nil {
		return nil, err
	}
	address, err := s.chooseAddress(ctx)
	if err != nil {
		return nil, err
	}
	s.keys.Store(&keys)
	s.address.Store(&address)
	args := append(slices.Clone(s.cfg.Command[1:]),
		"--dir", s.cfg.Dir, "--listen", address, "--credentials", credentialsFile)
	return exec.CommandContext(ctx, s.cfg.Command[0], args...), nil
}

// chooseAddress keeps the address once it served: URLs were signed for it.
// Before that another program may take a free port between our look and the
// server's start, so each attempt looks again.
func (s *S3) chooseAddress(ctx context.Context) (string, error) {
	remembered := filepath.Join(s.cfg.Dir, "address")
	switch {
	case s.hasServed():
		return *s.address.Load(), nil
	case s.cfg.Listen != "":
		return s.cfg.Listen, nil
	}
	var candidates []string
	if last, err := os.ReadFile(remembered); err == nil && !s.retried {
		candidates = append(candidates, strings.TrimSpace(string(last)))
	}
	s.retried = true
	address, err := freeAddress(ctx, append(candidates, "127.0.0.1:0"))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(remembered, []byte(address+"\n"), filePerm); err != nil { //nolint:gosec // in the data folder the user named
		return "", fmt.Errorf("remember address: %w", err)
	}
	return address, nil
}

// freeAddress is the first candidate that can be listened on.
func freeAddress(ctx context.Context, candidates []string) (string, error) {
	var errs []error
	for _, candidate := range candidates {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", candidate)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		address := listener.Addr().String()
		return address, listener.Close()
	}
	return "", fmt.Errorf("find a free port: %w", errors.Join(errs...))
}

// check asks for a path that only the server with these credentials knows, so
// another program on the port can't pass for it.
func (s *S3) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s3CheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint()+HealthPath(s.Credentials()), nil)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	req.Close = true
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("ask for health: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health answered HTTP %d", resp.StatusCode)
	}
	return nil
}

// HealthPath is where the server answers 200 without a signature.
func HealthPath(c Credentials) string {
	return "/_health-" + c.AccessKeyID
}
