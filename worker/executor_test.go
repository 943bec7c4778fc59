package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// folder is where the control plane lets an attempt write.
const folder = "/out/hls/t0a1/"

// workBundle is the real work, between a store and a control plane that signs.
type workBundle struct {
	store   *store
	source  string // path of the source in the store
	content []byte
	grant   *grant
	journal *journal
	scratch string
	execute executor

	mu       sync.Mutex
	progress []*tcoderv1.TaskProgress
	asked    int // objects that were signed
	// onSign may answer a request for URLs instead of the control plane.
	onSign func(objects []*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error)
	log    attempt
}

func setupWork(t *testing.T, clip string) *workBundle {
	t.Helper()

	content, err := os.ReadFile(clip)
	require.NoError(t, err)

	b := &workBundle{store: newStore(t), source: sourcePath, content: content, scratch: t.TempDir()}
	b.store.put(b.source, content)
	b.grant = newGrant(b.store.signGet(b.source))

	tools, err := ffmpeg.Find()
	require.NoError(t, err)

	pacing := testPacing()
	pacing.stall, pacing.patience = 5*time.Second, 5*time.Second

	journal, log := newJournal()
	b.journal = journal
	b.log.log = log
	b.execute = decorate(b.scratch, mediaWork{tools: tools, client: b.store.client(t), pacing: pacing}.execute)

	t.Cleanup(func() {
		left, err := os.ReadDir(b.scratch)
		require.NoError(t, err)
		require.Empty(t, left, "an attempt leaves no files")
		require.NotContains(t, journal.String(), secret, "no log holds a signature")
	})

	return b
}

// do runs an assignment to its report.
func (b *workBundle) do(t *testing.T, ctx context.Context, assignment *tcoderv1.Assignment) *tcoderv1.TaskReport {
	t.Helper()

	report, err := b.execute(ctx, attempt{
		assignment: assignment,
		source:     b.grant,
		progress: func(p *tcoderv1.TaskProgress) {
			b.mu.Lock()
			defer b.mu.Unlock()

			b.progress = append(b.progress, p)
		},
		sign: b.sign,
		log:  b.log.log,
	})
	require.NoError(t, err)
	require.Equal(t, assignment.GetLease(), report.GetLease())

	return report
}

func (b *workBundle) sign(
	_ context.Context, objects []*tcoderv1.EncodedObject,
) ([]*tcoderv1.SignedRequest, error) {
	b.mu.Lock()
	b.asked += len(objects)
	onSign := b.onSign
	b.mu.Unlock()

	if onSign != nil {
		if requests, err := onSign(objects); requests != nil || err != nil {
			return requests, err
		}
	}

	requests := make([]*tcoderv1.SignedRequest, 0, len(objects))
	for _, object := range objects {
		requests = append(requests, b.store.signPut(folder+object.GetName(), object))
	}

	return requests, nil
}

func (b *workBundle) assignment() *tcoderv1.Assignment {
	return &tcoderv1.Assignment{
		Lease:           &tcoderv1.LeaseRef{TaskId: "job-0", Attempt: 1},
		JobId:           "job",
		SourceSizeBytes: uint64(len(b.content)),
		SourceEtag:      b.store.etags[b.source],
		TimeLimit:       durationpb.New(time.Minute),
	}
}

func (b *workBundle) probe() *tcoderv1.Assignment {
	assignment := b.assignment()
	assignment.Kind = tcoderv1.TaskKind_TASK_KIND_PROBE
	assignment.Work = &tcoderv1.Assignment_Probe{Probe: &tcoderv1.ProbeWork{}}

	return assignment
}

// encode is two renditions and the sound of mediatest.Film, as HLS or MP4.
func (b *workBundle) encode(kind tcoderv1.OutputKind) *tcoderv1.Assignment {
	length := durationpb.New(7 * time.Second)
	assignment := b.assignment()
	assignment.Kind = tcoderv1.TaskKind_TASK_KIND_ENCODE
	assignment.Work = &tcoderv1.Assignment_Encode{Encode: &tcoderv1.EncodeWork{
		Duration: length,
		Source: &tcoderv1.ProbeResult{
			Format: "mov,mp4,m4a,3gp,3g2,mj2", Duration: length,
			Streams: []*tcoderv1.StreamInfo{
				{
					Index: 0, Kind: tcoderv1.StreamKind_STREAM_KIND_VIDEO, Codec: "h264", Width: 1280, Height: 720,
					FrameRate: &tcoderv1.Rational{Num: 24, Den: 1}, PixelFormat: "yuv420p", Duration: length,
				},
				{
					Index: 1, Kind: tcoderv1.StreamKind_STREAM_KIND_AUDIO, Codec: "aac", SampleRateHz: 48000, Channels: 2,
					Duration: length,
				},
			},
		},
		Output: &tcoderv1.OutputPlan{
			Name: "hls", Kind: kind, SegmentSeconds: 1,
			Video: &tcoderv1.VideoPlan{
				Codec: tcoderv1.VideoCodec_VIDEO_CODEC_H264, RateControl: tcoderv1.RateControl_RATE_CONTROL_CAPPED_CRF,
				Crf: 30, EncoderPreset: "ultrafast", FrameRate: &tcoderv1.Rational{Num: 24, Den: 1}, GopFrames: 24,
				Renditions: []*tcoderv1.RenditionPlan{
					{Name: "360p", Width: 640, Height: 360, VideoBitrateBps: 800_000},
					{Name: "240p", Width: 426, Height: 240, VideoBitrateBps: 400_000},
				},
			},
			Audio: &tcoderv1.AudioPlan{
				Name: "audio", StreamIndex: 1, Codec: tcoderv1.AudioCodec_AUDIO_CODEC_AAC, BitrateBps: 96_000,
				Channels: 2, SampleRateHz: 48000,
			},
		},
	}}

	return assignment
}

// requireStored checks that the store holds all that a report lists, of the
// right size.
func (b *workBundle) requireStored(t *testing.T, report *tcoderv1.TaskReport) []*tcoderv1.EncodedObject {
	t.Helper()
	require.Nil(t, report.GetFault(), "%s", b.journal)

	var objects []*tcoderv1.EncodedObject
	for _, rendition := range report.GetEncode().GetRenditions() {
		objects = append(objects, objectsOf(rendition)...)
	}

	for _, object := range objects {
		content, ok := b.store.get(folder + object.GetName())
		require.True(t, ok, object.GetName())
		require.Len(t, content, int(object.GetSizeBytes()), object.GetName())
		require.Equal(t, object.GetContentType(), b.store.typeOf(folder+object.GetName()), object.GetName())
	}

	return objects
}

// play checks that a rendition plays from what the store holds.
func (b *workBundle) play(t *testing.T, rendition *tcoderv1.EncodedRendition) {
	t.Helper()

	path := filepath.Join(t.TempDir(), "whole.mp4")

	file, err := os.Create(path)
	require.NoError(t, err)

	for _, object := range objectsOf(rendition) {
		content, _ := b.store.get(folder + object.GetName())
		_, err = file.Write(content)
		require.NoError(t, err)
	}

	require.NoError(t, file.Close())
	mediatest.DecodeClean(t, path)
}

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

// TestUploadTrouble guarantees that uploads survive a store that is busy,
// breaks connections, loses its answers and lets signatures expire.
func TestUploadTrouble(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))

	var puts atomic.Int32

	b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}

		switch puts.Add(1) {
		case 1, 2:
			http.Error(w, "SlowDown", http.StatusServiceUnavailable)

			return true
		case 3:
			panic(http.ErrAbortHandler)
		case 4:
			http.Error(w, "AccessDenied: Request has expired", http.StatusForbidden)

			return true
		default:
			return false
		}
	})

	asked := 0
	b.onSign = func([]*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
		if asked++; asked == 1 {
			return nil, &signRefusal{failure: &tcoderv1.Failure{
				Reason: tcoderv1.ErrorReason_ERROR_REASON_OBJECT_STORE_UNAVAILABLE,
			}}
		}

		return nil, nil
	}

	b.requireStored(t, b.do(t, t.Context(), b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)))
}

// TestUploadRefused guarantees that an upload which can't succeed ends the
// encode at once.
func TestUploadRefused(t *testing.T) {
	t.Parallel()

	for name, arrange := range map[string]func(b *workBundle){
		"by the store": func(b *workBundle) {
			b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					http.Error(w, "MethodNotAllowed", http.StatusMethodNotAllowed)
				}

				return r.Method == http.MethodPut
			})
		},
		"by each signature": func(b *workBundle) {
			b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut {
					http.Error(w, "SignatureDoesNotMatch", http.StatusForbidden)
				}

				return r.Method == http.MethodPut
			})
		},
		"by the control plane": func(b *workBundle) {
			b.onSign = func([]*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
				return nil, &signRefusal{failure: &tcoderv1.Failure{
					Reason: tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED,
				}}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := setupWork(t, mediatest.Clip(t, mediatest.Film))
			arrange(b)

			fault := b.do(t, t.Context(), b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)).GetFault()
			require.Equal(t, tcoderv1.FaultClass_FAULT_CLASS_UNKNOWN, fault.GetClass())
			require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, fault.GetFailure().GetReason())
			require.NotContains(t, fault.GetFailure().GetMessage(), "http")
		})
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
	down := func(b *workBundle) { b.store.Close() }

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

	b := setupWork(t, mediatest.Clip(t, mediatest.Film))

	// FFmpeg gets the head of the source and hangs.
	b.store.interfere(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") || r.Method != http.MethodGet {
			return false
		}

		<-r.Context().Done()

		return true
	})

	for name, stop := range map[string]func(assignment *tcoderv1.Assignment, cancel context.CancelCauseFunc) bool{
		"stopped": func(_ *tcoderv1.Assignment, cancel context.CancelCauseFunc) bool {
			cancel(errStopped)

			return false
		},
		"out of time": func(*tcoderv1.Assignment, context.CancelCauseFunc) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)

			assignment := b.encode(tcoderv1.OutputKind_OUTPUT_KIND_HLS)
			reports := make(chan *tcoderv1.TaskReport, 1)

			if name == "out of time" {
				assignment.TimeLimit = durationpb.New(1500 * time.Millisecond)
			}

			go func() { reports <- b.do(t, ctx, assignment) }()

			var pid int

			require.Eventually(t, func() bool {
				pid = processIn(b.scratch)

				return pid != 0
			}, 10*time.Second, 5*time.Millisecond)

			timed := stop(assignment, cancel)
			start := time.Now()
			report := <-reports

			require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "FFmpeg is dead")
			require.Zero(t, processIn(b.scratch))

			if timed {
				require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TASK_TIMEOUT, report.GetFault().GetFailure().GetReason())
			} else {
				require.Less(t, time.Since(start), 2*time.Second)
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

// TestUploaderBatches guarantees that a heap of small files is signed in a few
// messages, with never more than four uploads at a time.
func TestUploaderBatches(t *testing.T) {
	t.Parallel()

	const files = 100

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	dir := t.TempDir()

	var running, most, messages atomic.Int32

	b.store.interfere(func(_ http.ResponseWriter, _ *http.Request) bool {
		n := running.Add(1)
		defer running.Add(-1)

		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}

		return false
	})

	b.onSign = func([]*tcoderv1.EncodedObject) ([]*tcoderv1.SignedRequest, error) {
		messages.Add(1)

		return nil, nil
	}

	uploads := newUploader(b.store.client(t), b.sign, dir, testPacing(), func(err error) { t.Error(err) })

	for i := range files {
		name := fmt.Sprintf("%05d.m4s", i)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), make([]byte, i), 0o600)) // the first is empty
		uploads.add(&tcoderv1.EncodedObject{Name: name, SizeBytes: uint64(i), ContentType: "video/iso.segment"})
	}

	uploads.close()
	require.NoError(t, uploads.run(t.Context()))
	require.Len(t, b.store.written(), files)
	require.LessOrEqual(t, messages.Load(), int32(4))
	require.LessOrEqual(t, most.Load(), int32(uploadParallel))
}

// TestUploaderChangedFile guarantees that a file which isn't what was measured
// is never taken for a result.
func TestUploaderChangedFile(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.mp4"), []byte("12345"), 0o600))

	told := make(chan error, 1)
	uploads := newUploader(b.store.client(t), b.sign, dir, testPacing(), func(err error) { told <- err })
	uploads.add(&tcoderv1.EncodedObject{Name: "a.mp4", SizeBytes: 4})

	var fault *ffmpeg.Fault

	require.ErrorAs(t, uploads.run(t.Context()), &fault)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID, fault.Reason)
	require.ErrorIs(t, <-told, fault)
	require.Empty(t, b.store.written())
}

// TestUploaderLostAnswer guarantees that an upload whose success was not heard
// of is no failure when the store refuses to write the object twice.
func TestUploaderLostAnswer(t *testing.T) {
	t.Parallel()

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.mp4"), []byte("12345"), 0o600))

	var tries atomic.Int32

	b.store.interfere(func(w http.ResponseWriter, r *http.Request) bool {
		if tries.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}

		http.Error(w, "PreconditionFailed", http.StatusPreconditionFailed)

		return true
	})

	uploads := newUploader(b.store.client(t), b.sign, dir, testPacing(), func(error) {})
	uploads.add(&tcoderv1.EncodedObject{Name: "a.mp4", SizeBytes: 5})
	uploads.close()
	require.NoError(t, uploads.run(t.Context()))
	require.EqualValues(t, 2, tries.Load())
}

// TestScrub guarantees that an error of net/http loses its URL.
func TestScrub(t *testing.T) {
	t.Parallel()

	client := newStoreClient()
	defer client.CloseIdleConnections()

	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:1/?"+secret+"=1", nil)
	require.NoError(t, err)

	response, err := client.Do(request)
	if err == nil {
		response.Body.Close()
	}

	require.ErrorContains(t, err, secret)
	require.NotContains(t, scrub(fmt.Errorf("try 1: %w", err)).Error(), secret)
	require.Equal(t, "plain", scrub(errors.New("plain")).Error())
}
