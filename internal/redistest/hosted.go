package redistest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/local"
)

const (
	startAttempts = 5 // somebody else may take a port that was free a moment ago
	certFor       = time.Hour
	filePerm      = 0o600
)

// TLS is a server that takes encrypted connections alone, of a user with a password.
type TLS struct {
	URL    string      // rediss://
	Config *tls.Config // trusts the server's certificate
}

// StartTLS starts such a server for one test.
func StartTLS(t testing.TB) TLS {
	t.Helper()
	n := newNode(t)
	cert, key := filepath.Join(n.dir, "cert.pem"), filepath.Join(n.dir, "key.pem")
	trusted := certify(t, cert, key)
	n.args = []string{
		"--port", "0", "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no",
		"--user", "default", "off",
		"--user", "video", "on", ">s3cret/pass", "~*", "&*", "+@all",
	}
	n.portArg = "--tls-port"
	// The socket asks for the password, too: that it does is answer enough.
	n.serves = func(ask func(string) (string, error)) error {
		answer, err := ask("PING")
		if err == nil && !strings.HasPrefix(answer, "-NOAUTH") {
			err = fmt.Errorf("ping answered %q", answer)
		}
		return err
	}
	n.start()
	return TLS{
		URL:    "rediss://video:s3cret%2Fpass@" + n.address(),
		Config: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12},
	}
}

// StartCluster starts a node that has all slots of its cluster, for one test,
// and returns its host and port.
func StartCluster(t testing.TB) string {
	t.Helper()
	n := newNode(t)
	n.args = []string{"--cluster-enabled", "yes"}
	n.portArg = "--port"
	n.otherPortArg = "--cluster-port"
	n.serves = func(ask func(string) (string, error)) error {
		// Giving the slots out again is refused, which is as good.
		if _, err := ask("CLUSTER ADDSLOTSRANGE 0 16383"); err != nil {
			return err
		}
		answer, err := ask("CLUSTER KEYSLOT {tcoder}")
		if err == nil && !strings.HasPrefix(answer, ":") {
			err = fmt.Errorf("keyslot answered %q", answer)
		}
		if err != nil {
			return err
		}
		answer, err = ask("EXISTS {tcoder}")
		if err == nil && answer != ":0" {
			err = fmt.Errorf("exists answered %q", answer) // CLUSTERDOWN until all slots are served
		}
		return err
	}
	n.start()
	return n.address()
}

// node is a server on a port.
type node struct {
	t                     testing.TB
	dir                   string
	args                  []string
	portArg, otherPortArg string
	port                  int
	// serves asks the server by its socket whether it is as it should be.
	serves func(ask func(command string) (answer string, err error)) error
}

func newNode(t testing.TB) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "tcoder-redis-") //nolint:usetesting // its names are too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return &node{t: t, dir: dir}
}

func (n *node) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }

func (n *node) start() {
	n.t.Helper()
	process := local.NewProcess(local.ProcessConfig{
		Name: "redis", Command: n.command, Check: n.check, StartAttempts: startAttempts,
	})
	run, err := launch(n.t.Context(), process, "")
	require.NoError(n.t, err, "redistest")
	n.t.Cleanup(func() { require.NoError(n.t, run.stop()) })
}

func (n *node) socket() string { return filepath.Join(n.dir, "redis.sock") }

// command is that of one start, each with ports that are free.
func (n *node) command(ctx context.Context) (*exec.Cmd, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	n.port = port
	args := append([]string{
		"--bind", "127.0.0.1", "--unixsocket", n.socket(), "--unixsocketperm", "700", "--dir", n.dir,
		"--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--loglevel", "warning",
		n.portArg, strconv.Itoa(port),
	}, n.args...)
	if n.otherPortArg != "" {
		other, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		args = append(args, n.otherPortArg, strconv.Itoa(other))
	}
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", local.ErrNoRedisServer, err)
	}
	return exec.CommandContext(ctx, binary, args...), nil
}

func freePort(ctx context.Context) (int, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("find a free port: not TCP")
	}
	if err := listener.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return address.Port, nil
}

func (n *node) check(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", n.socket())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	reader := bufio.NewReader(conn)
	return n.serves(func(command string) (string, error) {
		if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
			return "", fmt.Errorf("%s: %w", command, err)
		}
		answer, err := reader.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("%s: %w", command, err)
		}
		return strings.TrimSpace(answer), nil
	})
}

// certify writes a certificate of this host and its key, and returns who trusts it.
func certify(t testing.TB, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-certFor), NotAfter: time.Now().Add(certFor),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: raw}, keyFile: {Type: "PRIVATE KEY", Bytes: rawKey},
	} {
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(block), filePerm))
	}
	cert, err := x509.ParseCertificate(raw)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}
