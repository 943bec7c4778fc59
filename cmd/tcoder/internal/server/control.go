package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services"
	"github.com/tcoder-dev/tcoder/services/job"
	"github.com/tcoder-dev/tcoder/services/pool"
	"github.com/tcoder-dev/tcoder/services/publish"
	"github.com/tcoder-dev/tcoder/services/sweep"
	"github.com/tcoder-dev/tcoder/services/upload"
)

const (
	// DefaultListen is where up and serve listen.
	DefaultListen    = "127.0.0.1:8080"
	defaultServerURL = "http://" + DefaultListen

	apiKeysEnv = "TCODER_API_KEYS" //nolint:gosec // a name, not a key
)

// controlSettings say whom the control plane serves and how.
type controlSettings struct {
	listen        string
	hosts         []string
	origins       []string
	open          bool
	input         inputSettings
	heartbeat     time.Duration
	lease         time.Duration
	retention     time.Duration
	waitingLimit  int
	runningLimit  int
	maxPutBytes   int64
	traceEndpoint string

	apiKeys     map[string]string
	workerToken string
}

func (s *controlSettings) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.listen, "listen", DefaultListen, "address to serve on")
	flags.StringSliceVar(&s.hosts, "allow-host", nil, "names by which clients may call the server, besides localhost and IP addresses (*: any)")
	flags.StringSliceVar(&s.origins, "allow-origin", nil, "origins whose web pages may call the server, such as https://app.example.com (*: any)")
	flags.BoolVar(&s.open, "allow-unauthenticated", false, "serve on other addresses than loopback without API keys")
	s.input.register(cmd)
	flags.DurationVar(&s.heartbeat, "heartbeat", 5*time.Second, "how often a worker is heard")
	flags.DurationVar(&s.lease, "lease", 20*time.Second, "how long a task stays with a worker that isn't heard any more")
	flags.DurationVar(&s.retention, "retention", 30*24*time.Hour, "how long an ended job is kept, with its source and outputs (0: for ever)")
	flags.IntVar(&s.waitingLimit, "project-waiting-limit", 0, "most jobs of a project that may wait; more are refused until some start (0: any number)")
	flags.IntVar(&s.runningLimit, "project-running-limit", 0, "most tasks of a project that may run at a time (0: any number)")
	flags.Int64Var(&s.maxPutBytes, "max-put-bytes", objectstore.MaxPutSizeBytes, "largest result that the object store takes in one PUT; larger ones are uploaded in parts of at most this")
	flags.StringVar(&s.traceEndpoint, "trace-endpoint", "", "URL to send OpenTelemetry traces to by OTLP over HTTP (empty: no traces)")
	cli.AddSecrets(cmd,
		cli.Secret{Env: apiKeysEnv, Usage: "keys that clients may use, as key or project=key, separated by commas (empty: none is asked for)"},
		workerToken())
}

// read takes the secrets and checks what can be checked before anything runs.
func (s *controlSettings) read(program *cli.Program) error {
	s.workerToken = program.Env(workerTokenEnv)
	var err error
	if s.apiKeys, err = parseAPIKeys(program.Env(apiKeysEnv)); err != nil {
		return err
	}
	if err := s.input.read(); err != nil {
		return err
	}
	switch {
	case s.heartbeat <= 0 || s.lease < 2*s.heartbeat:
		return cli.Usagef("lease: %s is less than two heartbeats of %s", s.lease, s.heartbeat)
	case s.maxPutBytes < objectstore.MinPartSizeBytes || s.maxPutBytes > objectstore.MaxPutSizeBytes:
		return cli.Usagef("max-put-bytes: %d is not in %d to %d", s.maxPutBytes, objectstore.MinPartSizeBytes, objectstore.MaxPutSizeBytes)
	case s.retention < 0:
		return cli.Usagef("retention: %s is negative", s.retention)
	case s.waitingLimit < 0 || s.runningLimit < 0:
		return cli.Usagef("project-waiting-limit, project-running-limit: %d, %d: none may be negative", s.waitingLimit, s.runningLimit)
	}

	return nil
}

// projectName is what a project may be called: its name is part of keys in Redis
// and of paths in the buckets.
var projectName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// parseAPIKeys reads "key" or "project=key", separated by commas, into the
// project of each key. It tells no key in an error.
func parseAPIKeys(list string) (map[string]string, error) {
	keys := map[string]string{}
	for _, item := range splitList(list) {
		project, key, found := strings.Cut(item, "=")
		if !found {
			project, key = pipeline.DefaultProject, item
		}
		switch other, taken := keys[key]; {
		case project == "" || strings.Trim(key, "=") == "": // the end of one in Base64, perhaps
			return nil, cli.Usagef("%s: write key or project=key, separated by commas, and project=key for a key with a = in it", apiKeysEnv)
		case !projectName.MatchString(project):
			return nil, cli.Usagef("%s: a project is named by up to 63 letters, digits, dots, dashes and underscores, and begins with one of the first two", apiKeysEnv)
		case taken && other != project:
			return nil, cli.Usagef("%s: projects %s and %s have the same key", apiKeysEnv, other, project)
		}
		keys[key] = project
	}

	return keys, nil
}

// bind takes the address, before anything else is started.
func (s *controlSettings) bind(ctx context.Context) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is in use by another program: stop that one, or choose another address with --listen", s.listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}

	return listener, nil
}

// localURL is how processes of this computer reach a listener.
func localURL(listener net.Listener) string {
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return "http://" + listener.Addr().String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}

	return "http://" + net.JoinHostPort(host, port)
}

// control is the control plane with its pool, put together but not started.
type control struct {
	server    *services.Server
	machines  *machines // nil without a pool of our own
	serverURL string
}

// newControl puts the control plane together on open stores.
func newControl(s *controlSettings, p *poolSettings, st *stores, listener net.Listener,
	tracer trace.TracerProvider, log *slog.Logger,
) (*control, error) {
	publisher := publish.New(st.redis, st.out, log)
	uploads := upload.New(upload.Config{
		MaxSizeBytes: s.input.bytes, ProjectMaxSizeBytes: s.input.sizes(), WaitingLimit: s.waitingLimit,
	}, upload.Deps{Store: st.redis, In: st.in, Log: log})
	jobs := job.New(job.Config{
		MaxSizeBytes: s.input.bytes, ProjectMaxSizeBytes: s.input.sizes(), WaitingLimit: s.waitingLimit, RunningLimit: s.runningLimit,
	}, job.Deps{
		Store: st.redis, In: st.in, Out: st.out, SettleUpload: uploads.Settle, Log: log,
	})
	var workers *pool.Service // the sweeper tells the store of its workers
	sweeper := sweep.New(sweep.Config{
		Replica: replicaName(listener), Lease: s.lease, Retry: pipeline.DefaultRetryPolicy(), Retention: s.retention,
	}, sweep.Deps{
		Store: st.redis, In: st.in, Out: st.out,
		Attached:     func() []string { return workers.Attached() },
		ExpireUpload: uploads.Settle, Publish: publisher.Publish, Stream: publisher.Stream, Log: log,
	})
	if len(s.apiKeys) > 0 && s.workerToken == "" {
		switch p.provider {
		case poolNone:
			log.Warn("no worker can attach: there are API keys and no worker token", "set", workerTokenEnv)
		case poolFly:
			return nil, cli.Usagef("%s: with API keys, a pool on Fly needs one that outlives this process", workerTokenEnv)
		default:
			s.workerToken = rand.Text() // our own workers are told
		}
	}
	c := &control{serverURL: localURL(listener)}
	config := pool.Config{
		Heartbeat: s.heartbeat, Lease: s.lease, Limits: s.input.input, ProjectLimits: s.input.inputs(), Retry: pipeline.DefaultRetryPolicy(), Provider: p.provider,
		ProjectRunningLimit: s.runningLimit, MaxPutBytes: s.maxPutBytes,
	}
	deps := pool.Deps{Store: st.redis, In: st.in, Out: st.out, Publish: publisher.Publish, Log: log}
	var collectors []prometheus.Collector
	if p.provider != poolNone {
		var err error
		if c.machines, err = newMachines(p, c.serverURL, s.workerToken, st.redis, sweeper, log); err != nil {
			return nil, err
		}
		config.Settings, config.CheckSettings = c.machines.settings, c.machines.checkSettings
		collectors = append(collectors, c.machines.scaler.Collector())
	}
	workers = pool.New(config, deps)
	server, err := services.New(services.Config{
		AllowedHosts:         s.hosts,
		AllowedOrigins:       s.origins,
		APIKeys:              s.apiKeys,
		WorkerToken:          s.workerToken,
		AllowUnauthenticated: s.open,
		TracerProvider:       tracer,
	}, services.Deps{
		Uploads:    uploads,
		Jobs:       jobs,
		Pool:       workers,
		Loops:      []services.Loop{workers, sweeper},
		Ready:      st.redis.Ready,
		Collectors: append(collectors, workers.Collector()),
		Listener:   listener,
		Log:        log,
	})
	if err != nil {
		return nil, &cli.UsageError{Err: err}
	}
	c.server = server

	return c, nil
}

// start starts the control plane, then its pool.
func (c *control) start(ctx context.Context, parts *stack) error {
	parts.start(ctx, "control plane", c.server.Run)
	if err := parts.wait(ctx, c.server.Serving()); err != nil {
		return err
	}
	if c.machines != nil {
		if c.machines.children != nil {
			parts.start(ctx, "workers", c.machines.children.Run)
		}
		parts.start(ctx, "autoscaler", c.machines.scaler.Run)
	}

	return nil
}

// kill ends the workers of the pool at once. There may be no control plane yet.
func (c *control) kill(ctx context.Context) error {
	if c == nil || c.machines == nil {
		return nil
	}

	return c.machines.kill(ctx)
}

// replicaName is the same after a restart, so that the sweeper leads at once.
func replicaName(listener net.Listener) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}

	return host + "/" + listener.Addr().String()
}
