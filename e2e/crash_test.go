package e2e_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/e2e/daemon"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// encodeSeconds is the length of a source that takes some seconds to encode,
// so that there is a middle to be killed in.
const encodeSeconds = 20

// shortLease is the lease of `serve` in these tests: long enough to start a
// control plane again, short enough to wait for.
const shortLease = 6 * time.Second

// begin uploads a clip that takes a while and returns when its encode runs.
func begin(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
	defer cancel()
	clip := mediatest.Zoom1080(t, encodeSeconds*time.Second)
	uploaded, err := client(t, url).UploadFile(ctx, clip, tcoder.UploadOptions{
		Spec: &tcoderv1.JobSpec{Preset: "hls-adaptive", Qualities: []string{"1080p", "360p"}},
	})
	require.NoError(t, err)
	id := uploaded.Job.GetId()
	for update, err := range client(t, url).Watch(ctx, id) {
		require.NoError(t, err)
		if update.Job.GetProgress().GetPercent() > 5 {
			return id
		}
	}
	require.Fail(t, "the job ended before it was in the middle")

	return ""
}

func finish(t *testing.T, url, id string) *tcoderv1.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
	defer cancel()
	job, err := client(t, url).Wait(ctx, id)
	require.NoError(t, err)
	require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, job.GetState(), "%v", job.GetFailure())

	return job
}

// encodeTask returns the job's only encode task.
func encodeTask(t *testing.T, job *tcoderv1.Job) *tcoderv1.Task {
	t.Helper()
	require.Len(t, job.GetTasks(), 2)
	require.Equal(t, tcoderv1.TaskKind_TASK_KIND_ENCODE, job.GetTasks()[1].GetKind())

	return job.GetTasks()[1]
}

// halves are `tcoder serve` and what it needs.
type halves struct {
	address, url string
	args         []string
	env          []string
	storage      s3.Config // of both buckets
}

func newHalves(t *testing.T) *halves {
	t.Helper()
	d := newDeployment(t)
	address := freeAddress(t)

	return &halves{
		address: address, url: "http://" + address, storage: d.storage, env: d.env,
		args: append([]string{"serve", "--listen", address, "--pool", "none", "--lease", shortLease.String(), "--heartbeat", "1s"}, d.flags...),
	}
}

func (h *halves) serve(t *testing.T) *daemon.Daemon {
	t.Helper()
	d := start(t, t.TempDir(), h.env, h.args...)
	waitReady(t, h.url, d)

	return d
}

func (h *halves) worker(t *testing.T) *daemon.Daemon {
	t.Helper()

	return start(t, t.TempDir(), nil, "worker", "--server", h.url, "--scratch", t.TempDir())
}

// A control plane that is killed in the middle of an encode guarantees that
// the same attempt goes on when it is back.
func TestControlPlaneKilled(t *testing.T) {
	t.Parallel()
	h := newHalves(t)
	control := h.serve(t)
	h.worker(t)
	id := begin(t, h.url)
	control.Kill()
	h.serve(t)
	job := finish(t, h.url, id)
	require.Len(t, encodeTask(t, job).GetAttempts(), 1)
}

// A worker that is killed in the middle guarantees that its task is leased
// again within two seconds of the lease's end, and that nothing is charged.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	h := newHalves(t)
	h.serve(t)
	worker := h.worker(t)
	id := begin(t, h.url)
	worker.Kill()
	killed := time.Now()
	h.worker(t)
	attempts := encodeTask(t, finish(t, h.url, id)).GetAttempts()
	require.Len(t, attempts, 2)
	require.Equal(t, tcoderv1.AttemptOutcome_ATTEMPT_OUTCOME_LOST, attempts[0].GetOutcome())
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_WORKER_LOST, attempts[0].GetFailure().GetReason())
	require.False(t, attempts[0].GetCharged())
	// Its last heartbeat was before it was killed.
	require.LessOrEqual(t, attempts[1].GetStartedAt().AsTime().Sub(killed), shortLease+2*time.Second)
}

// A worker that is told to stop guarantees to hand its task back at once, so
// that another one takes it, not charged.
func TestWorkerDrained(t *testing.T) {
	t.Parallel()
	h := newHalves(t)
	h.serve(t)
	worker := h.worker(t)
	id := begin(t, h.url)
	worker.Stop(t, syscall.SIGTERM)
	h.worker(t)
	attempts := encodeTask(t, finish(t, h.url, id)).GetAttempts()
	require.Len(t, attempts, 2)
	require.Equal(t, tcoderv1.AttemptOutcome_ATTEMPT_OUTCOME_RELEASED, attempts[0].GetOutcome())
	require.False(t, attempts[0].GetCharged())
}

// `up` that is killed with everything it started guarantees that the job
// completes after the next start, not charged.
func TestEverythingKilled(t *testing.T) {
	t.Parallel()
	s := up(t)
	id := begin(t, s.url)
	s.killTree(t)
	s.start(t)
	for _, attempt := range encodeTask(t, finish(t, s.url, id)).GetAttempts() {
		require.False(t, attempt.GetCharged())
	}
}

// killTree is kill -9 of it and of all that descend from it.
func (s *stack) killTree(t *testing.T) {
	t.Helper()
	for _, pid := range descendants(t, s.PID()) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
	}
	s.Kill()
}

func descendants(t *testing.T, root int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	children := map[int][]int{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		require.NoError(t, err)
		parent, err := strconv.Atoi(fields[1])
		require.NoError(t, err)
		children[parent] = append(children[parent], pid)
	}
	var all []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		all = append(all, children[queue[0]]...)
		queue = append(queue, children[queue[0]]...)
	}

	return all
}

// Ctrl-C guarantees that everything stops, and that a start finds the jobs as
// they were.
func TestStopAndStartAgain(t *testing.T) {
	t.Parallel()
	s := up(t)
	film := mediatest.Clip(t, mediatest.Film)
	done := transcode(t, s.url, film, "--preset", "hls", "--quality", "240p")
	requireCompleted(t, done)
	family := descendants(t, s.PID())
	require.NotEmpty(t, family)
	s.Stop(t, syscall.SIGINT)
	for _, pid := range family {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "process %d is left", pid)
	}
	s.start(t)
	job, err := client(t, s.url).GetJob(t.Context(), done.GetId())
	require.NoError(t, err)
	require.Equal(t, done.GetState(), job.GetState())
	require.Equal(t, done.GetTimes().String(), job.GetTimes().String())
	dir := t.TempDir()
	_, err = client(t, s.url).Download(t.Context(), done.GetId(), tcoder.DownloadOptions{Dir: dir})
	require.NoError(t, err)
	mediatest.DecodeClean(t, filepath.Join(dir, "master.m3u8"))
}

// A canceled job guarantees that its FFmpeg is gone before it could have
// ended, and that the worker takes the next job.
func TestCancelKillsFFmpeg(t *testing.T) {
	t.Parallel()
	s := up(t)
	id := begin(t, s.url)
	require.NotEmpty(t, encoders(t, s.PID()))
	_, err := client(t, s.url).CancelJob(t.Context(), id)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(encoders(t, s.PID())) == 0 }, 4*time.Second, pollEvery)
	requireCompleted(t, transcode(t, s.url, mediatest.Clip(t, mediatest.Film), "--preset", "hls", "--quality", "240p"))
}

// encoders are the FFmpeg processes below a process.
func encoders(t *testing.T, root int) []int {
	t.Helper()
	var found []int
	for _, pid := range descendants(t, root) {
		name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
		if err == nil && strings.TrimSpace(string(name)) == "ffmpeg" {
			found = append(found, pid)
		}
	}

	return found
}
