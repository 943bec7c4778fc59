package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// DefaultDrainGrace is the time that tasks get to end by themselves when the
// worker is told to stop.
const DefaultDrainGrace = 5 * time.Second

// DefaultDrainTimeout is the time within which a worker that is told to stop
// does so, whether or not anybody heard what it handed back: a pool kills what
// hasn't stopped after 20 s.
const DefaultDrainTimeout = 18 * time.Second

const maxSlots = 64

// Config is what a worker is made of. The zero value of an optional field means
// its default.
type Config struct {
	// Servers are the URLs of the control plane's replicas, or of what stands
	// before them: http (then HTTP/2 without TLS) or https. The worker goes to
	// the next when one fails. At least one.
	Servers []string
	// Transport is how to talk to them. Default TransportAuto.
	Transport Transport
	// WorkerID names the process, unlike any other there was. Default: a ULID.
	WorkerID string
	// MachineID is the pool's machine it runs on; empty for a self-managed one.
	MachineID string
	// Token is the worker's credential. Empty sends none.
	Token string
	// Slots is how many tasks run at a time, 1 to 64. Default 1.
	Slots int
	// ScratchDir is where attempts keep their files: at most 64 MiB of an HLS
	// output, the whole of an MP4. Workers may share it. Default: a folder in
	// memory for attempts that fit there, and one of the system's temporary
	// folder for the others, see ScratchPlaces.
	ScratchDir string
	// Tools are the FFmpeg programs. Default: those in $PATH.
	Tools ffmpeg.Tools
	// Encoders are the video codecs it offers. Default: what FFmpeg says.
	Encoders []tcoderv1.VideoCodec
	// Version of the program.
	Version string
	// DrainGrace is the time that tasks get to end by themselves when the worker
	// is told to stop. Negative means none. Default DefaultDrainGrace.
	DrainGrace time.Duration
	// DrainTimeout is how long the control plane may be away before the worker
	// leaves without an answer to what it handed back. Default
	// DefaultDrainTimeout.
	DrainTimeout time.Duration
	// Logger gets the log. Required.
	Logger *slog.Logger
	// Dial opens connections to the control plane. Default: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// StoreClient sends presigned requests. It must not follow redirects.
	// Default: HTTP/1.1.
	StoreClient *http.Client
	// Execute does the work in FFmpeg's place: for tests of the protocol, and
	// simulations. Then neither FFmpeg nor StoreClient is used.
	Execute Executor
}

// Worker runs tasks for one control plane.
type Worker struct {
	cfg   Config
	drain sync.Once
	stop  chan struct{}
}

// New checks the configuration. It opens and starts nothing.
func New(cfg Config) (*Worker, error) {
	if len(cfg.Servers) == 0 {
		return nil, errors.New("a worker needs a server")
	}

	for _, address := range cfg.Servers {
		server, err := url.Parse(address)
		if err != nil || (server.Scheme != "http" && server.Scheme != "https") || server.Host == "" {
			return nil, fmt.Errorf("the server's URL %q is not one of http or https", address)
		}
	}

	switch cfg.Transport {
	case "":
		cfg.Transport = TransportAuto
	case TransportAuto, TransportStream, TransportSync:
	default:
		return nil, fmt.Errorf("the transport %q is none of %s, %s and %s", cfg.Transport, TransportAuto, TransportStream, TransportSync)
	}

	if cfg.Logger == nil {
		return nil, errors.New("a worker needs a logger")
	}

	if cfg.Slots == 0 {
		cfg.Slots = 1
	}

	if cfg.Slots < 1 || cfg.Slots > maxSlots {
		return nil, fmt.Errorf("a worker has 1 to %d slots, not %d", maxSlots, cfg.Slots)
	}

	if cfg.WorkerID == "" {
		cfg.WorkerID = newID(time.Now())
	}

	if strings.ContainsAny(cfg.WorkerID, "/\\.") {
		return nil, fmt.Errorf("the worker's id %q is none", cfg.WorkerID)
	}

	if cfg.DrainGrace == 0 {
		cfg.DrainGrace = DefaultDrainGrace
	}

	cfg.DrainGrace = max(cfg.DrainGrace, 0)

	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}

	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}

	cfg.Logger = cfg.Logger.With("worker_id", cfg.WorkerID)

	return &Worker{cfg: cfg, stop: make(chan struct{})}, nil
}

// ID is the worker's id.
func (w *Worker) ID() string { return w.cfg.WorkerID }

// Drain makes Run finish what ends soon, hand back the rest, and return. It may
// be called at any time, and again.
func (w *Worker) Drain() {
	w.drain.Do(func() { close(w.stop) })
}

// Run attaches to the control plane and works until it is told to leave. It
// returns nil after a granted leave or a finished drain, the cause of ctx when
// that was canceled, which stops all work at once, and an error if FFmpeg or
// the scratch folder can't be used or the control plane can't serve this
// version. Losing the control plane is none. It is called once.
func (w *Worker) Run(ctx context.Context) (err error) {
	work, encoders := w.cfg.Execute, w.cfg.Encoders

	if work == nil {
		client := w.cfg.StoreClient
		if client == nil {
			client = newStoreClient()
			defer client.CloseIdleConnections()
		}

		tools, err := w.tools()
		if err != nil {
			return err
		}

		tools, err = tools.Inspect(ctx)
		if err != nil {
			return fmt.Errorf("ask FFmpeg what it can do: %w", err)
		}

		if encoders == nil {
			encoders = ffmpeg.VideoCodecs(tools.Encoders)
		}

		if tools.Threads == 0 {
			tools.Threads = ffmpeg.ThreadsPerSlot(w.cfg.Slots, runtime.GOMAXPROCS(0))
		}

		if tools.MaxMemoryBytes == 0 {
			tools.MaxMemoryBytes = ffmpeg.MemoryPerSlot(w.cfg.Slots, totalMemory())
		}

		work = mediaWork{tools: tools, client: client, pacing: defaultPacing()}.execute
	}

	places, closeScratch, err := w.openScratch()
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, closeScratch()) }()

	hello := &tcoderv1.Hello{
		WorkerId:  w.cfg.WorkerID,
		MachineId: w.cfg.MachineID,
		Version:   w.cfg.Version,
		Slots:     uint32(w.cfg.Slots),
		Encoders:  encoders,
		Cpus:      uint32(runtime.GOMAXPROCS(0)),
	}

	return newLoop(w.cfg, hello, decorate(places, work), w.stop).run(ctx)
}

// openScratch makes the worker's folders.
func (w *Worker) openScratch() (*room, func() error, error) {
	places, err := ScratchPlaces(w.cfg.ScratchDir)
	if err != nil {
		return nil, nil, err
	}

	found := &room{}
	closeAll := func() error { return nil }

	for i, place := range places {
		opened, err := openScratch(place.Dir, w.cfg.WorkerID)
		if err != nil && i+1 < len(places) {
			w.cfg.Logger.Warn("the scratch folder in memory can't be used", "folder", place.Dir, "error", err)

			continue
		}

		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}

		before := closeAll
		closeAll = func() error { return errors.Join(before(), opened.close()) }

		w.cfg.Logger.Info("scratch folder", "folder", place.Dir, "in_memory", place.InMemory, "free_bytes", place.FreeBytes)

		found.memory, found.disk = found.disk, opened.dir // the disk comes last
	}

	return found, closeAll, nil
}

// tools completes the configured programs by those in $PATH.
func (w *Worker) tools() (ffmpeg.Tools, error) {
	tools := w.cfg.Tools
	if tools.FFmpeg != "" && tools.FFprobe != "" {
		return tools, nil
	}

	found, err := ffmpeg.Find()
	if err != nil {
		return ffmpeg.Tools{}, fmt.Errorf("find FFmpeg: %w", err)
	}

	if tools.FFmpeg == "" {
		tools.FFmpeg = found.FFmpeg
	}

	if tools.FFprobe == "" {
		tools.FFprobe = found.FFprobe
	}

	return tools, nil
}
