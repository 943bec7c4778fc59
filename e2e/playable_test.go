package e2e_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/internal/objectstore/s3"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// playableSeconds is the length of a source that is long enough to be made in
// chunks, and to be watched while it is.
const playableSeconds = 63

// A job guarantees that it can be played long before it is complete, by the
// names of files that are there, as one task and in chunks. A worker that is
// killed meanwhile costs the tasks it held alone, and of what players were
// told nothing moves.
func TestPlayable(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"whole": {"--pool-limit", "1"}, "chunked": {"--pool-limit", "4"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHalves(t)
			h.args = append(h.args, args...)
			h.serve(t)
			worker := h.worker(t)
			out, err := s3.New(h.storage)
			require.NoError(t, err)
			t.Cleanup(out.Close)
			ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
			defer cancel()
			uploaded, err := client(t, h.url).UploadFile(ctx, mediatest.Looped(t, playableSeconds*time.Second), tcoder.UploadOptions{
				Spec: &tcoderv1.JobSpec{Preset: "hls-adaptive", Qualities: []string{"360p", "240p"}},
			})
			require.NoError(t, err)
			id := uploaded.Job.GetId()
			job := untilPlayable(ctx, t, h.url, id)
			require.Equal(t, tcoderv1.JobState_JOB_STATE_RUNNING, job.GetState())
			require.NotNil(t, job.GetTimeToPlayable())

			prefix := strings.TrimSuffix(job.GetPlayable()[0].GetObjectKey(), "master.m3u8")
			read := func(name string) ([]byte, error) {
				body, _, err := out.Get(ctx, prefix+name)
				if err != nil {
					return nil, err
				}
				defer body.Close() //nolint:errcheck // it was read

				return io.ReadAll(body)
			}
			growing := mediatest.CheckHLS(t, false, read)
			var names []string
			for o, err := range client(t, h.url).Outputs(ctx, id) {
				require.NoError(t, err)
				names = append(names, o.GetObject().GetName())
				_, err := read(o.GetObject().GetName())
				require.NoError(t, err)
				checkCaching(ctx, t, o)
			}
			require.Contains(t, names, "master.m3u8")
			worker.Kill()
			h.worker(t)
			job = finish(t, h.url, id)

			whole := mediatest.CheckHLS(t, true, read)
			require.Len(t, whole.Variants, 3)
			for _, before := range growing.Variants {
				at := slices.IndexFunc(whole.Variants, func(v mediatest.Variant) bool { return v.URI == before.URI })
				require.GreaterOrEqual(t, at, 0, before.URI)
				after := whole.Variants[at]
				require.Equal(t, before.Init, after.Init)
				require.Equal(t, before.Segments, after.Segments[:len(before.Segments)])
				require.InDelta(t, playableSeconds, after.Duration().Seconds(), 0.5)
			}
			require.Less(t, job.GetTimeToPlayable().AsDuration(), job.GetTimeToComplete().AsDuration()/2)
			again := 0
			for _, task := range job.GetTasks() {
				again += len(task.GetAttempts()) - 1
			}
			require.LessOrEqual(t, again, 1, "the worker had one slot")
		})
	}
}

// untilPlayable waits for the event, and returns the job as it is then.
func untilPlayable(ctx context.Context, t *testing.T, url, id string) *tcoderv1.Job {
	t.Helper()
	for update, err := range client(t, url).Watch(ctx, id) {
		require.NoError(t, err)
		if update.Event.GetType() == tcoderv1.JobEventType_JOB_EVENT_TYPE_PLAYABLE {
			return update.Job
		}
	}
	require.Fail(t, "the job ended and was never playable")

	return nil
}

// checkCaching checks that caches keep what stays, and ask for what grows.
func checkCaching(ctx context.Context, t *testing.T, o *tcoderv1.ReadableObject) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.GetUrl(), http.NoBody)
	require.NoError(t, err)
	answer, err := new(http.Client).Do(req)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	want := "max-age=31536000, immutable"
	if strings.HasSuffix(o.GetObject().GetName(), ".m3u8") {
		want = "no-cache"
	}
	require.Equal(t, want, answer.Header.Get("Cache-Control"), o.GetObject().GetName())
}
