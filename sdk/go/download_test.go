package tcoder_test

import (
	"bytes"
	"context"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// stored is an output's file on the scripted server.
type stored struct {
	output, name string
	body         []byte
	statedSize   int // 0: the real one
}

// serveOutputs scripts a completed job with these files, two to a page.
func (s *server) serveOutputs(files ...stored) {
	job := &tcoderv1.Job{Id: "j", State: tcoderv1.JobState_JOB_STATE_COMPLETED}
	for i, file := range files {
		s.store.put(strconv.Itoa(i), file.body)
		known := false
		for _, output := range job.GetOutputs() {
			known = known || output.GetName() == file.output
		}
		if !known {
			job.Outputs = append(job.Outputs, &tcoderv1.Output{Name: file.output, Entry: file.name})
		}
	}
	s.getJob = func(*tcoderv1.GetJobRequest) (*tcoderv1.GetJobResponse, error) {
		return &tcoderv1.GetJobResponse{Job: job}, nil
	}
	s.listObjects = func(r *tcoderv1.ListOutputObjectsRequest) (*tcoderv1.ListOutputObjectsResponse, error) {
		start, _ := strconv.Atoi(r.GetPageToken())
		res := &tcoderv1.ListOutputObjectsResponse{}
		for i := start; i < min(start+2, len(files)); i++ {
			size := max(files[i].statedSize, len(files[i].body))
			if files[i].statedSize != 0 {
				size = files[i].statedSize
			}
			res.Objects = append(res.Objects, &tcoderv1.ReadableObject{
				Output: files[i].output,
				Object: &tcoderv1.OutputObject{Name: files[i].name, Key: "out/" + strconv.Itoa(i), SizeBytes: uint64(size)},
				Url:    s.store.sign(http.MethodGet, strconv.Itoa(i)).GetUrl(),
			})
		}
		if start+2 < len(files) {
			res.NextPageToken = strconv.Itoa(start + 2)
		}

		return res, nil
	}
}

// filesBelow are the paths of all files in a folder.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, relErr := filepath.Rel(dir, path)
			require.NoError(t, relErr)
			names = append(names, name)
		}

		return err
	}))

	return names
}

func requireFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), path)
}

// The files of a single output lie in Dir by their own names.
func TestDownloadOfOneOutput(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveOutputs(
		stored{output: "hls", name: "master.m3u8", body: noise(100)},
		stored{output: "hls", name: "t1a1/720p/init.mp4", body: noise(1_000)},
		stored{output: "hls", name: "t1a1/720p/00000.m4s", body: noise(200_000)},
	)
	dir := filepath.Join(t.TempDir(), "new", "out")
	progress, reached := watchProgress(t)

	got, err := client.Download(t.Context(), "j", tcoder.DownloadOptions{Dir: dir, OnProgress: progress})

	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "master.m3u8")}, got.Entries)
	require.Len(t, got.Files, 3)
	require.ElementsMatch(t, []string{"master.m3u8", "t1a1/720p/init.mp4", "t1a1/720p/00000.m4s"}, filesBelow(t, dir))
	requireFile(t, filepath.Join(dir, "t1a1/720p/00000.m4s"), noise(200_000))
	reached(201_100)
}

// Several outputs get a folder each, and what was there before is replaced.
func TestDownloadOfSeveralOutputs(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveOutputs(
		stored{output: "mp4", name: "720p.mp4", body: noise(10)},
		stored{output: "web", name: "720p.mp4", body: noise(20)},
	)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "web"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "web", "720p.mp4"), []byte("old and longer than the new one"), 0o600))

	got, err := client.Download(t.Context(), "j", tcoder.DownloadOptions{Dir: dir})

	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "mp4/720p.mp4"), filepath.Join(dir, "web/720p.mp4")}, got.Entries)
	requireFile(t, filepath.Join(dir, "mp4/720p.mp4"), noise(10))
	requireFile(t, filepath.Join(dir, "web/720p.mp4"), noise(20))
}

// No name that a server sends writes outside of Dir, not even through a link
// that lies there.
func TestDownloadStaysInItsFolder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../evil", "/etc/evil", "a/../../evil", "", ".", "a//b", "a/./b", "link/evil"} {
		s, client := newServer(t)
		s.serveOutputs(stored{output: "hls", name: name, body: []byte("x")})
		parent := t.TempDir()
		dir := filepath.Join(parent, "out")
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.Symlink(parent, filepath.Join(dir, "link")))

		_, err := client.Download(t.Context(), "j", tcoder.DownloadOptions{Dir: dir})

		require.Error(t, err, name)
		require.Equal(t, []string{"out/link"}, filesBelow(t, parent), name)
	}
	s, client := newServer(t)
	s.serveOutputs(stored{output: "a", name: "x"}, stored{output: "../b", name: "x"})
	_, err := client.Download(t.Context(), "j", tcoder.DownloadOptions{Dir: t.TempDir()})
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, tcoder.ReasonOf(err))
}

// A download that is cut off goes on where it was, and one that expired is
// signed again.
func TestDownloadOutlivesStoreFailures(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	body := noise(300_000)
	s.serveOutputs(stored{output: "mp4", name: "720p.mp4", body: body}, stored{output: "mp4", name: "a"}, stored{output: "mp4", name: "b"})
	var requests atomic.Int32
	var resumed atomic.Bool
	s.store.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/0" {
			return false
		}
		switch requests.Add(1) {
		case 1:
			w.WriteHeader(http.StatusForbidden)
		case 2:
			w.WriteHeader(http.StatusInternalServerError)
		case 3:
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body[:100_000])
			panic(http.ErrAbortHandler)
		default:
			resumed.Store(r.Header.Get("Range") != "")

			return false
		}

		return true
	}
	dir := t.TempDir()
	progress, reached := watchProgress(t)

	_, err := client.Download(t.Context(), "j", tcoder.DownloadOptions{Dir: dir, OnProgress: progress})

	require.NoError(t, err)
	requireFile(t, filepath.Join(dir, "720p.mp4"), body)
	require.True(t, resumed.Load())
	reached(len(body))
}

// A file that doesn't have its stated size doesn't appear.
func TestDownloadChecksSizes(t *testing.T) {
	t.Parallel()
	for _, stated := range []int{9, 11} {
		s, client := newServer(t)
		s.serveOutputs(stored{output: "mp4", name: "720p.mp4", body: noise(10), statedSize: stated})
		dir := t.TempDir()

		_, err := client.Download(t.Context(), "j", tcoder.DownloadOptions{Dir: dir})

		require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, tcoder.ReasonOf(err))
		require.Empty(t, filesBelow(t, dir))
	}
}

// The end of the caller's context leaves no half-written file.
func TestDownloadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, client := newServer(t)
	s.serveOutputs(stored{output: "mp4", name: "720p.mp4", body: noise(100_000)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.store.intercept = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(noise(50_000))
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()

		return true
	}
	dir := t.TempDir()

	_, err := client.Download(ctx, "j", tcoder.DownloadOptions{Dir: dir})

	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, filesBelow(t, dir))
}
