package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// class is a kind of input of the matrix.
type class struct {
	id mediatest.ID
	// fps is the cadence of what is made of it; 0: there is no picture.
	fps float64
	// aspect is the shape of the picture, width to height.
	aspect float64
	silent bool
	// prepare are filters that make a source's pictures comparable with what is made of them.
	prepare string
	// leastSSIM is how alike a picture at least is to its source's, where noise makes that less than usual.
	leastSSIM float64
	// pieces says that it is made in chunks where the pool has room.
	pieces bool
	// failure is why nothing comes of it; empty: something does.
	failure string
}

const (
	wide    = 16. / 9
	upright = 9. / 16
)

// classes are all kinds of input that people have.
func classes() []class {
	return []class{
		{id: mediatest.Film, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.Rotated, fps: 24, aspect: upright, pieces: true},
		{id: mediatest.Portrait, fps: 24, aspect: upright, pieces: true},
		{id: mediatest.VariableRate, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.HighRate, fps: 60000. / 1001, aspect: wide, pieces: true},
		{id: mediatest.NoAudio, fps: 24, aspect: wide, silent: true, pieces: true},
		{id: mediatest.AudioOnly},
		{id: mediatest.Cover},
		{id: mediatest.OddSize, fps: 24, aspect: wide, silent: true, pieces: true},
		{id: mediatest.VP9Opus, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.ManyStreams, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.Surround, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.Deep444, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.HDR10, fps: 24, aspect: wide, silent: true, pieces: true, prepare: "zscale=t=linear:npl=100,format=gbrpf32le," +
			"zscale=p=bt709,tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,"},
		{id: mediatest.ProRes, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.Interlaced, fps: 25, aspect: 4. / 3, prepare: "bwdif=mode=send_frame:parity=auto:deint=interlaced,"},
		{id: mediatest.OffsetStart, fps: 24, aspect: wide},
		{id: mediatest.TailMoov, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.OneFrame, fps: 24, aspect: wide, silent: true},
		{id: mediatest.GIF, fps: 10, aspect: wide, silent: true, prepare: "scale=out_color_matrix=bt709:out_range=tv,", leastSSIM: 0.9},
		{id: mediatest.TruncatedTail, failure: "INPUT_TRUNCATED"},
		{id: mediatest.TruncatedIndex, failure: "INPUT_TRUNCATED"},
		{id: mediatest.Corrupt, fps: 24, aspect: wide, pieces: true},
		{id: mediatest.Empty, failure: "SIZE_INVALID"},
		{id: mediatest.Text, failure: "INPUT_NOT_MEDIA"},
	}
}

// column is what is asked for.
type column struct {
	name    string
	args    []string
	chunked bool // of a pool with room for more than one task
}

func columns() []column {
	ladder := []string{"--preset", "hls-adaptive", "--quality", "360p", "--quality", "240p"}

	return []column{
		{name: "default"},
		{name: "web-optimized", args: []string{"--preset", "web-optimized", "--quality", "240p"}},
		{name: "hls-adaptive", args: ladder},
		{name: "chunked", args: ladder, chunked: true},
	}
}

// Every class of input guarantees the right output of every preset, whole and
// in chunks, or the right failure: what was made is upright, complete, of
// constant cadence, shows each picture in its place and sounds in step with
// it. By default one class is tried, whole and in chunks; TCODER_MATRIX=full tries all,
// plays each stream in a browser, and prints what came out.
func TestMatrix(t *testing.T) {
	t.Parallel()
	full := os.Getenv("TCODER_MATRIX") == "full"
	cells := columns()
	kinds := classes()
	if !full {
		cells = cells[2:]
		kinds = slices.DeleteFunc(kinds, func(c class) bool { return c.id != mediatest.VariableRate })
	}
	whole, chunked := up(t, "--pool-limit", "1"), up(t, "--pool-limit", "2")
	table := &table{columns: cells}
	if full {
		t.Cleanup(func() { t.Log(table.String()) })
	}
	for _, kind := range kinds {
		t.Run(string(kind.id), func(t *testing.T) {
			t.Parallel()
			m := matrixRow{class: kind, clip: mediatest.Numbered(t, kind.id), ssim: map[string]float64{}}
			results := make([]string, len(cells))
			defer func() { table.add(kind.id, results) }()
			for i, cell := range cells {
				results[i] = "WRONG"
				url := whole.url
				if cell.chunked {
					url = chunked.url
				}
				results[i] = m.try(t, url, cell)
			}
			if full {
				m.play(t)
			}
		})
	}
}

// try asks for one output, and says in some words what came out.
func (m *matrixRow) try(t *testing.T, url string, cell column) string {
	t.Helper()
	dir := t.TempDir()
	out, errs, code := cli(t, url, append([]string{"transcode", m.clip, "--json", "-o", dir}, cell.args...)...)
	require.NotEmpty(t, out, errs)
	if m.failure == "SIZE_INVALID" { // before there is a job
		require.Equal(t, m.failure, parseError(t, out).Error.Reason)

		return m.failure
	}
	job := parseJob(t, out)
	if m.failure != "" {
		require.Equal(t, 1, code, errs)
		require.Equal(t, tcoderv1.JobState_JOB_STATE_FAILED, job.GetState(), cell.name)
		require.Equal(t, "ERROR_REASON_"+m.failure, job.GetFailure().GetReason().String(), job.GetFailure().GetMessage())

		return m.failure
	}
	require.Equal(t, tcoderv1.JobState_JOB_STATE_COMPLETED, job.GetState(), "%s: %v", cell.name, job.GetFailure())
	chunks := job.GetPlan().GetOutputs()[0].GetChunks()
	require.Equal(t, cell.chunked && m.pieces, len(chunks) > 1, cell.name)
	note := m.check(t, job, dir)
	if output := job.GetOutputs()[0]; output.GetKind() == tcoderv1.OutputKind_OUTPUT_KIND_HLS {
		m.streams = append(m.streams, madeStream{dir: dir, length: output.GetDuration().AsDuration()})
	}
	if len(chunks) > 1 {
		note = fmt.Sprintf("%d chunks, %s", len(chunks), note)
	}

	return note
}

// table is what came out of all.
type table struct {
	columns []column

	mu   sync.Mutex
	rows [][]string
}

func (t *table) add(id mediatest.ID, results []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, append([]string{string(id)}, results...))
}

func (t *table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	head := []string{"input"}
	for _, c := range t.columns {
		head = append(head, c.name)
	}
	slices.SortFunc(t.rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	for _, row := range append([][]string{head}, t.rows...) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush()

	return "\n" + b.String()
}
