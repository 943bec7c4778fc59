package worker

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// TestEncodeHLS guarantees that segments are uploaded while FFmpeg still
// encodes, that everything arrives whole, and that progress is told.
func TestEncodeHLS(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))

	// The end of the source is held back until a segment has arrived.
	arrived := make(chan struct{})

	var once sync.Once

	b.store.interfere(func(_ http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodPut:
			once.Do(func() { close(arrived) })
		case !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-"):
			select {
			case <-arrived:
			case <-r.Context().Done():
			}
		}

		return false
	})

	report := b.do(t, t.Context(), b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS))
	objects := b.requireStored(t, report)
	require.GreaterOrEqual(t, len(objects), 3*(1+7))
	require.Equal(t, len(objects), b.asked, "every object is signed once")
	require.Len(t, b.store.written(), len(objects), "and sent once")

	for _, rendition := range report.GetEncode().GetRenditions() {
		b.play(t, rendition)
	}

	require.NotEmpty(t, b.progress)

	last := b.progress[len(b.progress)-1]
	require.InDelta(t, 1, last.GetFraction(), 0.01)
	require.InDelta(t, 7, last.GetMediaTime().AsDuration().Seconds(), 0.2)
	require.Equal(t, report.GetLease(), last.GetLease())
}

// TestEncodeMP4 guarantees that files are uploaded when they are done.
func TestEncodeMP4(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))
	report := b.do(t, t.Context(), b.encode(tcoderv1.OutputKind_OUTPUT_KIND_MP4))
	objects := b.requireStored(t, report)
	require.Len(t, objects, 2)
	require.Equal(t, "360p.mp4", objects[0].GetName())

	for _, rendition := range report.GetEncode().GetRenditions() {
		b.play(t, rendition)
	}
}

// TestProbeTailMoov guarantees that a source with its index at the end is
// probed by a few requests.
func TestProbeTailMoov(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.TailMoov))
	result := b.do(t, t.Context(), b.probe()).GetProbe()
	require.Len(t, result.GetStreams(), 2, "%s", b.journal)
	require.EqualValues(t, len(b.content), result.GetSizeBytes())
	require.Less(t, len(b.store.ranges()), 40)
}

// TestWorkFaults guarantees that a report says whose fault a failure is.
func TestWorkFaults(t *testing.T) {
	t.Parallel()

	encode := func(b *workBundle) *tcoderv1.Assignment { return b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS) }
	probe := (*workBundle).probe
	down := func(b *workBundle) { b.store.fall() }

	for name, test := range map[string]struct {
		clip    mediatest.ID
		work    func(*workBundle) *tcoderv1.Assignment
		arrange func(*workBundle)
		class   tcoderv1.FaultClass
		reason  tcoderv1.ErrorReason
	}{
		"text": {
			mediatest.Text, probe, nil,
			tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA,
		},
		"source gone before the probe": {
			mediatest.Film, probe, func(b *workBundle) { delete(b.store.objects, b.source) },
			tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING,
		},
		"source gone before the encode": {
			mediatest.Film, encode, func(b *workBundle) { delete(b.store.objects, b.source) },
			tcoderv1.FaultClass_FAULT_CLASS_INPUT, tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING,
		},
		"store down at the probe": {
			mediatest.Film, probe, down,
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"store down at the encode": {
			mediatest.Film, encode, down,
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"store gone in the middle": {
			mediatest.Film, encode, func(b *workBundle) {
				b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
					broken := r.Method == http.MethodGet && !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-")
					if broken {
						http.Error(w, "", http.StatusInternalServerError)
					}

					return broken
				})
			},
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
		},
		"work it doesn't know": {
			mediatest.Film, func(b *workBundle) *tcoderv1.Assignment {
				assignment := b.assignment()
				assignment.Kind = tcoderv1.TaskKind_TASK_KIND_IMAGES

				return assignment
			}, nil,
			tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setupWork(t, mediatest.Clip(t, test.clip))
			work := test.work(b)

			if test.arrange != nil {
				test.arrange(b)
			}

			fault := b.do(t, t.Context(), work).GetFault()
			require.NotNil(t, fault)
			require.Equal(t, test.class, fault.GetClass(), "%s", b.journal)
			require.Equal(t, test.reason, fault.GetFailure().GetReason(), "%s", b.journal)
			require.NotEmpty(t, fault.GetFailure().GetMessage())
		})
	}
}

// TestCancelKills guarantees that a stopped task's FFmpeg is dead within two
// seconds, whatever it is waiting for, and that a time limit is one.
func TestCancelKills(t *testing.T) {
	t.Parallel()

	for name, outOfTime := range map[string]bool{"stopped": false, "out of time": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setupWork(t, mediatest.Clip(t, mediatest.Film))

			// FFmpeg gets the head of the source and hangs.
			b.store.interfere(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") || r.Method != http.MethodGet {
					return false
				}

				<-r.Context().Done()

				return true
			})

			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)

			assignment := b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)
			if outOfTime {
				assignment.TimeLimit = durationpb.New(1500 * time.Millisecond)
			}

			reports := make(chan *tcoderv1.TaskReport, 1)

			go func() {
				report, _ := b.run(ctx, assignment) // its error is always nil
				reports <- report
			}()

			var pid int

			require.Eventually(t, func() bool {
				pid = processIn(b.scratch)

				return pid != 0
			}, 10*time.Second, 5*time.Millisecond)

			start := time.Now()

			if !outOfTime {
				cancel(errStopped)
			}

			report := <-reports

			require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "FFmpeg is dead")
			require.Zero(t, processIn(b.scratch))

			if outOfTime {
				require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, report.GetFault().GetFailure().GetReason())
			} else {
				require.Less(t, time.Since(start), 10*time.Second)
			}
		})
	}
}

// processIn finds a process that works in a folder.
func processIn(dir string) int {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, dir+"/") {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])

			return pid
		}
	}

	return 0
}
