package publish_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// growing is a job of one HLS output, whose picture is made in three chunks of
// 4, 12 and 4 s, and whose sound is one task more.
type growing struct {
	bundle

	job    pipeline.Job
	leases map[int]pipeline.Lease // by part; 0 is the sound
}

func (b bundle) growing(t *testing.T) growing {
	t.Helper()
	ctx := t.Context()
	g := growing{bundle: b, leases: map[int]pipeline.Lease{}}
	_, _, err := b.store.AttachWorker(ctx, pipeline.Worker{ID: "w1", Slots: 9}, time.Minute)
	require.NoError(t, err)
	g.job, err = b.store.CreateJob(ctx, pipeline.Job{ID: ulid.Make().String(), Project: "default", Source: pipeline.Source{ObjectKey: "k"}},
		pipeline.NewTask{Kind: pipeline.KindProbe}, pipeline.Admission{})
	require.NoError(t, err)
	plan := &media.Plan{Duration: 20 * time.Second, Outputs: []media.OutputPlan{{
		Name: "hls", Kind: media.KindHLS, SegmentSeconds: 4,
		Video: &media.VideoPlan{
			FrameRate: media.Rational{Num: 25, Den: 1}, GOPFrames: 50, ExpectedFrames: 500,
			Renditions: []media.RenditionPlan{{Name: "360p", Width: 640, Height: 360, VideoBitrateBPS: 800_000}},
		},
		Audio:  &media.AudioPlan{Name: "audio", BitrateBPS: 128_000, Channels: 2},
		Chunks: []media.Chunk{{First: 0, End: 100}, {First: 100, End: 400}, {First: 400, End: 500}},
	}}}
	probe := g.claim(t)
	tasks := []pipeline.NewTask{{Kind: pipeline.KindAudio, Output: "hls", Weight: 1}}
	for part := 1; part <= 3; part++ {
		tasks = append(tasks, pipeline.NewTask{Kind: pipeline.KindEncode, Output: "hls", Part: part, Weight: 1})
	}
	_, _, err = b.store.FinishTask(ctx, pipeline.TaskResult{Ref: probe.Ref, WorkerID: "w1", Probe: &media.Probe{}, Plan: plan, Tasks: tasks})
	require.NoError(t, err)
	for part := range 4 {
		g.leases[part] = g.claim(t)
	}
	return g
}

func (g growing) claim(t *testing.T) pipeline.Lease {
	t.Helper()
	workers, err := g.store.ListWorkers(t.Context())
	require.NoError(t, err)
	claimed, err := g.store.ClaimTasks(t.Context(), pipeline.Claim{
		RequestID: ulid.Make().String(), WorkerID: "w1", Session: workers[0].Session, Max: 1, Lease: time.Minute,
	})
	require.NoError(t, err)
	require.Len(t, claimed.Leases, 1)
	return claimed.Leases[0]
}

// made are n segments of 4 s that a part makes of its rendition, the first at
// a position in the part.
func made(part, first, n int) media.UploadedSegments {
	name, codecs, start := "360p", "avc1.64001f", map[int]int{1: 0, 2: 1, 3: 4}[part]
	result := media.RenditionResult{Width: 640, Height: 360, FrameRate: media.Rational{Num: 25, Den: 1}}
	if part == 0 {
		name, codecs, result = "audio", "mp4a.40.2", media.RenditionResult{}
	}
	result.Name, result.Codecs = name, codecs
	u := media.UploadedSegments{
		Rendition: result, First: first,
		Init: media.EncodedObject{Name: name + "/init.mp4", SizeBytes: 1, ContentType: "video/mp4"},
	}
	for i := first; i < first+n; i++ {
		u.Segments = append(u.Segments, media.EncodedObject{
			Name: fmt.Sprintf("%s/%05d.m4s", name, start+i), SizeBytes: 9, Duration: 4 * time.Second, ContentType: "video/iso.segment",
		})
	}
	return u
}

func (g growing) commit(t *testing.T, part, first, n int) {
	t.Helper()
	v, err := g.store.CommitSegments(t.Context(), pipeline.SegmentCommit{
		Ref: g.leases[part].Ref, WorkerID: "w1", Output: "hls", Part: part, Uploaded: []media.UploadedSegments{made(part, first, n)},
	})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, v)
}

func (g growing) finish(t *testing.T, part, n int) {
	t.Helper()
	u := made(part, 0, n)
	u.Rendition.Duration = time.Duration(n) * 4 * time.Second
	v, _, err := g.store.FinishTask(t.Context(), pipeline.TaskResult{Ref: g.leases[part].Ref, WorkerID: "w1", Result: &media.EncodeResult{
		Renditions: []media.EncodedRendition{{Result: u.Rendition, InitSegment: &u.Init, Segments: u.Segments}},
	}})
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, v)
}

func (g growing) key(name string) string {
	return media.OutputPrefix("default", g.job.ID, "hls") + name
}

// read returns a manifest, empty if there is none.
func (g growing) read(t *testing.T, name string) string {
	t.Helper()
	body, _, err := g.out.Get(t.Context(), g.key(name))
	if err != nil {
		require.ErrorIs(t, err, objectstore.ErrNotFound)
		return ""
	}
	defer body.Close() //nolint:errcheck // a test
	text, err := io.ReadAll(body)
	require.NoError(t, err)
	return string(text)
}

// uris are the segments that a playlist names.
func uris(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

// TestStream: what is committed can be played while the job runs, from the
// start without holes whatever order chunks end in; playlists only grow, and
// are sealed when the job completes.
func TestStream(t *testing.T) {
	t.Parallel()
	g := setup(t).growing(t)
	p := g.publisher(g.out)
	publish := func() {
		t.Helper()
		require.NoError(t, p.Stream(t.Context(), g.job.ID))
	}
	playable := func() bool {
		t.Helper()
		job, err := g.store.GetJob(t.Context(), g.job.ID)
		require.NoError(t, err)
		return !job.Times.Playable.IsZero()
	}

	g.commit(t, 2, 0, 2)
	publish()
	require.Empty(t, g.keys(t), "a picture from the middle can't be played")
	g.commit(t, 1, 0, 1)
	publish()
	require.Empty(t, g.keys(t), "nor one without its sound")
	require.False(t, playable())

	g.commit(t, 0, 0, 1)
	publish()
	require.True(t, playable())
	master := g.read(t, "master.m3u8")
	require.Contains(t, master, `RESOLUTION=640x360,FRAME-RATE=25.000,CODECS="avc1.64001f,mp4a.40.2",AUDIO="audio"`)
	require.Contains(t, master, "BANDWIDTH=1020800,")
	first := g.read(t, "360p.m3u8")
	require.Contains(t, first, "#EXT-X-PLAYLIST-TYPE:EVENT\n")
	require.Contains(t, first, "#EXT-X-START:TIME-OFFSET=0\n", "players would start near its end")
	require.NotContains(t, first, "ENDLIST")
	require.Equal(t, []string{"t2a1/360p/00000.m4s", "t3a1/360p/00001.m4s", "t3a1/360p/00002.m4s"}, uris(first))
	require.Equal(t, []string{"t1a1/audio/00000.m4s"}, uris(g.read(t, "audio.m3u8")))

	g.commit(t, 3, 0, 1)
	g.commit(t, 0, 1, 4)
	publish()
	require.Equal(t, first, g.read(t, "360p.m3u8"), "chunk 3 waits for the rest of chunk 2")
	require.Len(t, uris(g.read(t, "audio.m3u8")), 5)
	g.commit(t, 2, 2, 1)
	publish()
	grown := g.read(t, "360p.m3u8")
	require.True(t, strings.HasPrefix(grown, first), "it is only appended to")
	require.Len(t, uris(grown), 5)
	require.Equal(t, master, g.read(t, "master.m3u8"))
	job, err := g.store.GetJob(t.Context(), g.job.ID)
	require.NoError(t, err)
	require.Equal(t, []pipeline.RenditionProgress{
		{Output: "hls", Name: "360p", Playable: 20 * time.Second}, {Output: "hls", Name: "audio", Playable: 20 * time.Second},
	}, job.Progress.Renditions)

	for part, n := range []int{5, 1, 3, 1} {
		g.finish(t, part, n)
	}
	require.NoError(t, p.Publish(t.Context(), g.job.ID))
	done, err := g.store.GetJob(t.Context(), g.job.ID)
	require.NoError(t, err)
	require.GreaterOrEqual(t, done.Times.Finished.Sub(job.Streamed), pipeline.StreamEvery, "R2 takes a key once a second")
	sealed := g.read(t, "360p.m3u8")
	require.Contains(t, sealed, "#EXT-X-PLAYLIST-TYPE:VOD\n")
	require.True(t, strings.HasSuffix(sealed, "#EXT-X-ENDLIST\n"))
	require.Equal(t, uris(grown), uris(sealed))
	publish()
	require.Equal(t, sealed, g.read(t, "360p.m3u8"), "it is sealed for good")
}

// TestLateWriters: of two replicas, whichever writes last, the playlist with
// more stays; and a write that is held up while the job completes doesn't
// open the sealed playlist again.
func TestLateWriters(t *testing.T) {
	t.Parallel()
	g := setup(t).growing(t)
	g.commit(t, 0, 0, 5)
	g.commit(t, 1, 0, 1)
	ahead := g.publisher(g.out)
	var held sync.Once
	behind := g.publisher(hookedStore{g.out, func(key string) error {
		if strings.HasSuffix(key, "/360p.m3u8") {
			held.Do(func() {
				g.commit(t, 2, 0, 2)
				require.NoError(t, ahead.Stream(context.WithoutCancel(t.Context()), g.job.ID))
			})
		}
		return nil
	}})
	require.NoError(t, behind.Stream(t.Context(), g.job.ID))
	require.Len(t, uris(g.read(t, "360p.m3u8")), 3)

	g.commit(t, 2, 2, 1)
	g.commit(t, 3, 0, 1)
	var once sync.Once
	late := g.publisher(hookedStore{g.out, func(string) error {
		once.Do(func() {
			for part, n := range []int{5, 1, 3, 1} {
				g.finish(t, part, n)
			}
			require.NoError(t, ahead.Publish(context.WithoutCancel(t.Context()), g.job.ID))
		})
		return nil
	}})
	require.NoError(t, late.Stream(t.Context(), g.job.ID))
	require.Contains(t, g.read(t, "360p.m3u8"), "ENDLIST")
	require.Contains(t, g.read(t, "master.m3u8"), ", final")
}

// TestStreamOutlivesItsAttempt: what a lost attempt has published stays where
// it is, in the growing playlists and in the final ones.
func TestStreamOutlivesItsAttempt(t *testing.T) {
	t.Parallel()
	g := setup(t).growing(t)
	p := g.publisher(g.out)
	g.commit(t, 0, 0, 5)
	g.commit(t, 1, 0, 1)
	g.commit(t, 2, 0, 2)
	require.NoError(t, p.Stream(t.Context(), g.job.ID))
	before := g.read(t, "360p.m3u8")
	_, err := g.store.ReleaseTask(t.Context(), "w1", g.leases[2].Ref)
	require.NoError(t, err)
	g.leases[2] = g.claim(t)
	require.Equal(t, 2, g.leases[2].Ref.Attempt)
	g.commit(t, 2, 0, 1)
	require.NoError(t, g.publisher(g.out).Stream(t.Context(), g.job.ID), "another replica")
	require.Equal(t, before, g.read(t, "360p.m3u8"))
	g.commit(t, 2, 1, 2)
	require.NoError(t, p.Stream(t.Context(), g.job.ID))
	require.Equal(t, append(uris(before), "t3a2/360p/00003.m4s"), uris(g.read(t, "360p.m3u8")))

	for part, n := range []int{5, 1, 3, 1} {
		g.finish(t, part, n)
	}
	require.NoError(t, p.Publish(t.Context(), g.job.ID))
	require.Equal(t, append(uris(before), "t3a2/360p/00003.m4s", "t4a1/360p/00004.m4s"), uris(g.read(t, "360p.m3u8")))
	job, err := g.store.GetJob(t.Context(), g.job.ID)
	require.NoError(t, err)
	named := map[string]bool{}
	for _, o := range job.Outputs[0].Objects {
		named[o.Name] = true
	}
	require.True(t, named["t3a1/360p/00001.m4s"], "cleaning up leaves what is named")
	require.False(t, named["t3a2/360p/00001.m4s"])
}

// TestStreamWithdrawn: a job that ends without success loses what was
// published of it, also what is being written meanwhile.
func TestStreamWithdrawn(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]bool{"after it was published": false, "while it is written": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := setup(t).growing(t)
			g.commit(t, 0, 0, 1)
			g.commit(t, 1, 0, 1)
			cancel := sync.OnceValue(func() error {
				_, err := g.store.CancelJob(context.WithoutCancel(t.Context()), g.job.ID)
				return err
			})
			p := g.publisher(hookedStore{g.out, func(string) error {
				if meanwhile {
					return cancel()
				}
				return nil
			}})
			require.NoError(t, p.Stream(t.Context(), g.job.ID))
			if !meanwhile {
				require.Len(t, g.keys(t), 3)
				require.NoError(t, cancel())
				require.NoError(t, p.Stream(t.Context(), g.job.ID))
			}
			require.Empty(t, g.keys(t))
		})
	}
}

// TestStreamOfALaterRun: a new run's playlists take the place of those that a
// run which ended left, though those name more.
func TestStreamOfALaterRun(t *testing.T) {
	t.Parallel()
	m := func(run int, final bool, names int) media.Manifest {
		line := fmt.Sprintf("#EXTM3U\n## run %d", run)
		if final {
			line += ", final"
		}
		return media.Manifest{Body: []byte(line + "\n" + strings.Repeat("#EXTINF:4,\nx\n", names))}
	}
	ordered := []media.Manifest{m(1, false, 1), m(1, false, 2), m(1, true, 2), m(2, false, 1), m(2, true, 1)}
	for i, a := range ordered {
		for j, b := range ordered {
			require.Equal(t, i > j, a.Supersedes(b.Body), "%d over %d", i, j)
		}
	}
}
