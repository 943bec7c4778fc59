package ffmpeg

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/sandbox"
)

// Tools are the FFmpeg programs, and the bounds of every process that is
// made of them. The zero value of a bound means its default.
type Tools struct {
	// FFmpeg and FFprobe are the paths of the programs.
	FFmpeg, FFprobe string
	// StallTimeout ends an encode that makes no progress for so long with
	// TASK_TIMEOUT. Default 60 s.
	StallTimeout time.Duration
	// KillGrace is the time between SIGTERM and SIGKILL. Default 1 s.
	KillGrace time.Duration
	// MaxMemoryBytes bounds the resident memory of a process: an encode beyond
	// it fails with ENCODE_FAILED. Default 6 GiB; see MemoryPerSlot.
	MaxMemoryBytes uint64
	// MaxFileBytes bounds each file that an encode writes. Default 256 GiB.
	MaxFileBytes uint64
	// Threads is how many an encode's decoder, its filters and the encoder of its
	// largest rendition take: see ThreadsPerSlot. 0 leaves it to them.
	Threads int
	// Encoders are those of libx264, libx265, libsvtav1 and aac that FFmpeg has,
	// in this order: see Inspect.
	Encoders []string
	// Zimg is whether FFmpeg has libzimg, which scales for less than FFmpeg
	// itself: see Inspect.
	Zimg bool
	// Sandbox keeps every process. Default: sandbox.Default.
	Sandbox *sandbox.Sandbox
}

// The defaults of Tools.
const (
	defaultStallTimeout = time.Minute
	defaultKillGrace    = time.Second
	defaultMaxMemory    = 6 << 30
	defaultMaxFileBytes = 256 << 30
)

func (t Tools) withDefaults() Tools {
	if t.StallTimeout <= 0 {
		t.StallTimeout = defaultStallTimeout
	}

	if t.KillGrace <= 0 {
		t.KillGrace = defaultKillGrace
	}

	if t.MaxMemoryBytes == 0 {
		t.MaxMemoryBytes = defaultMaxMemory
	}

	if t.MaxFileBytes == 0 {
		t.MaxFileBytes = defaultMaxFileBytes
	}

	if t.Sandbox == nil {
		t.Sandbox = sandbox.Default()
	}

	return t
}

// MemoryPerSlot is how much memory a process may have: its share of four fifths
// of what the machine has, at most the default, which is also for a machine of
// which nothing is known (0). So the process that takes too much ends by itself,
// before the kernel ends whichever it likes. With less than half a gigabyte most
// sources would fail that might just fit.
func MemoryPerSlot(slots int, machineBytes uint64) uint64 {
	const least = 512 << 20

	if machineBytes == 0 {
		return defaultMaxMemory
	}

	return min(defaultMaxMemory, max(least, machineBytes/5*4/uint64(slots)))
}

// Find returns the Tools in $PATH. It fails with ENCODER_MISSING, as the
// machine's fault, if one of the programs isn't there.
func Find() (Tools, error) {
	var tools Tools

	for name, path := range map[string]*string{"ffmpeg": &tools.FFmpeg, "ffprobe": &tools.FFprobe} {
		found, err := exec.LookPath(name)
		if err != nil {
			fault := missingProgram()
			fault.Log = err.Error()

			return Tools{}, fault
		}

		*path = found
	}

	return tools, nil
}

// maker is a process of FFmpeg that makes files in dir of a source.
func (t Tools) maker(source Source, dir string, args []string, timeLimit time.Duration) process {
	return process{
		path: t.FFmpeg, args: args, dir: dir, timeLimit: timeLimit, stallTimeout: t.StallTimeout, killGrace: t.KillGrace,
		maxMemoryBytes: t.MaxMemoryBytes, maxFileBytes: t.MaxFileBytes, sandbox: t.Sandbox, port: source.port(),
	}
}

// maxEncoderList bounds what is read of FFmpeg's list of encoders.
const maxEncoderList = 1 << 20

// Inspect asks FFmpeg what it was built with, and returns the tools that know.
func (t Tools) Inspect(ctx context.Context) (Tools, error) {
	const timeLimit = 20 * time.Second

	limits := t.withDefaults()
	list := &capture{limit: maxEncoderList}
	run := process{
		path: t.FFmpeg, args: []string{"-nostdin", "-encoders"}, stdout: list,
		timeLimit: timeLimit, killGrace: limits.KillGrace, sandbox: limits.Sandbox,
	}

	end, err := run.run(ctx)
	if err != nil {
		return Tools{}, endFault(err, end.log)
	}

	if end.code != 0 {
		return Tools{}, exitFault(end, func(log string) *Fault { return machineFault(log, "FFmpeg doesn't list its encoders") })
	}

	words := strings.Fields(list.String())

	t.Encoders = slices.DeleteFunc([]string{"libx264", "libx265", "libsvtav1", "aac"}, func(name string) bool {
		return !slices.Contains(words, name)
	})

	// The banner tells how it was configured.
	t.Zimg = strings.Contains(end.log, "--enable-libzimg")

	return t, nil
}

// VideoCodecs returns the video codecs that a worker with these encoders can
// make.
func VideoCodecs(encoders []string) []tcoderv1.VideoCodec {
	var codecs []tcoderv1.VideoCodec

	for _, codec := range []tcoderv1.VideoCodec{
		tcoderv1.VideoCodec_VIDEO_CODEC_H264, tcoderv1.VideoCodec_VIDEO_CODEC_HEVC, tcoderv1.VideoCodec_VIDEO_CODEC_AV1,
	} {
		if slices.Contains(encoders, videoEncoder(codec)) {
			codecs = append(codecs, codec)
		}
	}

	return codecs
}

// capture keeps the start of what is written to it.
type capture struct {
	limit    int
	overflow bool
	data     bytes.Buffer
}

// Write never fails: a writer that did would leave the program hanging.
func (c *capture) Write(data []byte) (int, error) {
	if room := c.limit - c.data.Len(); len(data) > room {
		c.overflow = true
		c.data.Write(data[:room])
	} else {
		c.data.Write(data)
	}

	return len(data), nil
}

// String is what was kept.
func (c *capture) String() string { return c.data.String() }
