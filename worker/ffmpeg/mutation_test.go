package ffmpeg_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

//nolint:gochecknoglobals // how go test takes flags
var (
	mutations = flag.Int("mutations", 20, "broken copies of each kind of container that TestMutations makes")
	seed      = flag.Uint64("mutation-seed", 1, "where the seeds of TestMutations start")
)

// mutantLimit is the time that each step of a mutant may take. It's long: the machine may be busy.
const mutantLimit = 30 * time.Second

// TestMutations guarantees that a broken file of any kind ends as a result or
// as a fault of its own, never the machine's, in bounded time and memory. The
// start of a program is most of what that costs, so only the first of a kind
// is probed, planned and encoded like an upload, and the others are decoded, as
// if they had broken since they were probed; with -mutations above the default
// all are uploads.
func TestMutations(t *testing.T) {
	t.Parallel()

	const byDefault = 20

	for _, kind := range mediatest.TinyKinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()

			content, err := os.ReadFile(mediatest.Tiny(t, kind))
			require.NoError(t, err)
			require.LessOrEqual(t, len(content), 200_000)

			whole, _ := serve(t, mediatest.Tiny(t, kind))
			streams := probe(t, whole).GetStreams()
			ends := map[string]int{}

			for n := range uint64(*mutations) {
				path := filepath.Join(t.TempDir(), "mutant")
				require.NoError(t, os.WriteFile(path, mediatest.Mutate(content, *seed+n), 0o600))

				source, _ := serve(t, path)
				if *mutations > byDefault || n == 0 {
					ends[endOf(mutantUpload(t, source))]++
				} else {
					ends[endOf(mutantDecode(t, source, streams))]++
				}

				if t.Failed() {
					t.Fatalf("kind %s, seed %d", kind, *seed+n)
				}
			}

			t.Logf("%d mutants of %s: %v", *mutations, kind, ends)
		})
	}
}

// endOf names an end for the count.
func endOf(reason tcoderv1.ErrorReason) string {
	if reason == tcoderv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return "result"
	}

	return strings.TrimPrefix(reason.String(), "ERROR_REASON_")
}

func mutantSpec() media.Spec {
	return media.Spec{Preset: "web-optimized", Video: media.VideoSettings{EncoderPreset: "ultrafast"}}
}

// bounded are tools whose processes have little memory.
func bounded(t testing.TB) ffmpeg.Tools {
	t.Helper()

	found := tools(t)
	found.MaxMemoryBytes, found.MaxFileBytes, found.StallTimeout = 1<<30, 64<<20, mutantLimit

	return found
}

// mutantUpload treats a mutant like an upload and returns the reason of its
// end, unspecified for a result.
func mutantUpload(t testing.TB, source ffmpeg.Source) tcoderv1.ErrorReason {
	t.Helper()

	found, err := ffmpeg.Probe(t.Context(), bounded(t), ffmpeg.ProbeRequest{Source: source, Limits: limits(), TimeLimit: mutantLimit})
	if err != nil {
		return ownFault(t, err)
	}

	spec, err := media.Resolve(mutantSpec())
	require.NoError(t, err)

	planned, err := media.MakePlan(domainProbe(found), spec, media.Limits{}, 1)
	if refused, ok := errors.AsType[*media.PlanError](err); ok {
		return tcoderv1.ErrorReason(tcoderv1.ErrorReason_value["ERROR_REASON_"+refused.Reason])
	}

	require.NoError(t, err)
	require.NotEmpty(t, planned.Outputs)

	return mutantEncode(t, source, plan(t, found, mutantSpec()))
}

func mutantEncode(t testing.TB, source ffmpeg.Source, work *tcoderv1.EncodeWork) tcoderv1.ErrorReason {
	t.Helper()

	start := time.Now()
	_, err := ffmpeg.Encode(t.Context(), bounded(t), ffmpeg.EncodeRequest{
		Source: source, Work: work, Dir: t.TempDir(), TimeLimit: mutantLimit,
	})
	require.Less(t, time.Since(start), mutantLimit+10*time.Second)

	return ownFault(t, err)
}

// mutantDecode decodes streams that the mutant should have.
func mutantDecode(t testing.TB, source ffmpeg.Source, streams []*tcoderv1.StreamInfo) tcoderv1.ErrorReason {
	t.Helper()

	return ownFault(t, ffmpeg.Decode(t.Context(), bounded(t), ffmpeg.ProbeRequest{
		Source: source, Limits: limits(), TimeLimit: mutantLimit,
	}, streams))
}

// ownFault requires that a failure, if it is one, is typed and not the
// machine's.
func ownFault(t testing.TB, err error) tcoderv1.ErrorReason {
	t.Helper()

	if err == nil {
		return tcoderv1.ErrorReason_ERROR_REASON_UNSPECIFIED
	}

	found, ok := errors.AsType[*ffmpeg.Fault](err)
	require.True(t, ok, "%v", err)
	require.NotEqual(t, tcoderv1.FaultClass_FAULT_CLASS_MACHINE, found.Class, "%s: %s\n%s", found.Reason, found.Message, found.Log)
	require.NotEqual(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, found.Reason, found.Log)
	require.NotEqual(t, tcoderv1.ErrorReason_ERROR_REASON_INTERNAL, found.Reason, found.Log)
	require.NotEmpty(t, found.Message)

	return found.Reason
}
