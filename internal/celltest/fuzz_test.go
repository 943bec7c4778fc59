package celltest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/gen/go/tcoder/v1/tcoderv1connect"
	"github.com/tcoder-dev/tcoder/internal/celltest"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/memstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// script reads a worker's messages out of the fuzzer's bytes.
type script struct {
	data []byte
	id   string               // of the worker
	refs []*tcoderv1.LeaseRef // that it may name
}

func (s *script) byte() byte {
	if len(s.data) == 0 {
		return 0
	}

	b := s.data[0]
	s.data = s.data[1:]

	return b
}

// bytes reads up to n bytes.
func (s *script) bytes(n int) []byte {
	taken := s.data[:min(n, len(s.data))]
	s.data = s.data[len(taken):]

	return taken
}

// text is what a string of a message can hold.
func (s *script) text(n int) string { return strings.ToValidUTF8(string(s.bytes(n)), "?") }

func (s *script) number() uint64 {
	var raw [8]byte

	copy(raw[:], s.bytes(len(raw)))

	return binary.LittleEndian.Uint64(raw[:])
}

func (s *script) float() float64 {
	if b := s.byte(); b < 128 {
		return float64(b) / 127
	}

	return math.Float64frombits(s.number())
}

func (s *script) ref() *tcoderv1.LeaseRef { return s.refs[int(s.byte())%len(s.refs)] }

func (s *script) duration() *durationpb.Duration {
	return &durationpb.Duration{Seconds: int64(s.number()), Nanos: int32(s.number())}
}

// message makes the next message. Most are as they should be but for what they
// name and say; some are any bytes that are a message.
func (s *script) message() *tcoderv1.AttachRequest {
	switch s.byte() % 11 {
	case 0:
		h := &tcoderv1.Heartbeat{}
		for range s.byte() % 8 {
			h.Running = append(h.Running, &tcoderv1.TaskProgress{Lease: s.ref(), Fraction: s.float(), Speed: s.float(), MediaTime: s.duration()})
		}

		return &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Heartbeat{Heartbeat: h}}
	case 1:
		probe := celltest.Probed()
		probe.Duration, probe.Streams[0].FrameRate.Num = s.duration(), int64(s.number())

		return report(&tcoderv1.TaskReport{Lease: s.ref(), End: &tcoderv1.TaskReport_Probe{Probe: probe}})
	case 2:
		return report(&tcoderv1.TaskReport{Lease: s.ref(), End: &tcoderv1.TaskReport_Probe{Probe: celltest.Probed()}})
	case 3:
		return report(&tcoderv1.TaskReport{Lease: s.ref(), End: &tcoderv1.TaskReport_Encode{Encode: s.result()}})
	case 4:
		return report(&tcoderv1.TaskReport{Lease: s.ref(), End: &tcoderv1.TaskReport_Fault{Fault: &tcoderv1.Fault{
			Class:   tcoderv1.FaultClass(s.byte() % 5),
			Failure: &tcoderv1.Failure{Reason: tcoderv1.ErrorReason(s.byte()), Message: s.text(5)},
		}}})
	case 5:
		return report(&tcoderv1.TaskReport{Lease: s.ref(), End: &tcoderv1.TaskReport_Released{Released: &tcoderv1.Released{}}})
	case 6:
		sign := &tcoderv1.SignRequest{RequestId: s.number(), Lease: s.ref()}
		for range s.byte() % 4 {
			sign.Objects = append(sign.Objects, s.object())
		}

		return &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Sign{Sign: sign}}
	case 7:
		if s.byte()%2 == 0 {
			return &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Leave{Leave: &tcoderv1.LeaveRequest{}}}
		}

		return &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Draining{Draining: &tcoderv1.Draining{}}}
	case 8:
		return &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{Hello: s.hello()}}
	case 9:
		return &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Segments{Segments: s.segments()}}
	default:
		m := &tcoderv1.AttachRequest{}
		_ = proto.Unmarshal(s.bytes(int(s.byte())), m) // what it read before an error counts, too

		if m.GetHello() != nil {
			m.GetHello().WorkerId = s.id
		}

		return m
	}
}

func report(r *tcoderv1.TaskReport) *tcoderv1.AttachRequest {
	return &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Report{Report: r}}
}

func (s *script) object() *tcoderv1.EncodedObject {
	names := []string{"360p/00000.m4s", "360p/init.mp4", "../../a", "/a", "a//b", ".a", "a/../b", "", strings.Repeat("a", 300)}
	types := []string{"video/iso.segment", "video/mp4", "text/html", ""}
	o := &tcoderv1.EncodedObject{
		Name: names[int(s.byte())%len(names)], ContentType: types[int(s.byte())%len(types)], SizeBytes: uint64(s.byte()),
	}

	if s.byte() > 200 {
		o.SizeBytes, o.Duration, o.Name = s.number(), s.duration(), s.text(20)
	}

	return o
}

// segments are some that were uploaded, or so it says, with holes and repeats.
func (s *script) segments() *tcoderv1.SegmentReport {
	said := &tcoderv1.SegmentReport{Lease: s.ref(), Sequence: 1 + uint64(s.byte())}

	for range s.byte() % 4 {
		uploaded := &tcoderv1.UploadedSegments{
			Rendition: &tcoderv1.RenditionResult{
				Name: "360p", Codecs: "avc1.64001f", Width: 640, Height: 360, FrameRate: &tcoderv1.Rational{Num: 25, Den: int64(s.byte())},
			},
			InitSegment: s.object(), First: uint32(s.byte()) << (s.byte() % 25),
		}
		for range s.byte() % 8 {
			uploaded.Segments = append(uploaded.Segments, s.object())
		}

		said.Renditions = append(said.Renditions, uploaded)
	}

	return said
}

// result is one that fits the plan, with something changed.
func (s *script) result() *tcoderv1.EncodeResult {
	second := durationpb.New(5 * time.Second)
	made := &tcoderv1.EncodeResult{}

	for range s.byte() % 4 {
		made.Renditions = append(made.Renditions, &tcoderv1.EncodedRendition{
			Result: &tcoderv1.RenditionResult{
				Name: "360p", Codecs: "avc1.64001f", Width: 640, Height: 360, FrameRate: &tcoderv1.Rational{Num: 25, Den: int64(s.byte())},
				Duration: durationpb.New(10 * time.Second), FrameCount: s.number(),
			},
			InitSegment: s.object(),
			Segments:    []*tcoderv1.EncodedObject{s.object(), {Name: "360p/00001.m4s", SizeBytes: 1, Duration: second, ContentType: "video/iso.segment"}},
		})
	}

	return made
}

func (s *script) hello() *tcoderv1.Hello {
	hello := &tcoderv1.Hello{WorkerId: s.id, Slots: uint32(s.byte()%70) + uint32(s.byte()>>7)*1000, Draining: s.byte()%8 == 1}
	for range s.byte() % 8 {
		hello.Held = append(hello.Held, s.ref())
	}

	return hello
}

// prey is what an attacker must not touch, and what is its own.
type prey struct {
	cell *celltest.Cell
	id   string // of the attacker
	jobs []pipeline.Job
	own  map[string]bool // task ids
	refs []*tcoderv1.LeaseRef
	held []pipeline.Task // the victim's
}

// newPrey has a victim and the attacker hold a probe and an encode each.
func newPrey(t *testing.T, c *celltest.Cell) *prey {
	t.Helper()

	name := ulid.Make().String()
	p := &prey{cell: c, id: "attacker-" + name, own: map[string]bool{}}

	for _, id := range []string{"victim-" + name, p.id} {
		session, _, err := c.Store.AttachWorker(t.Context(), pipeline.Worker{ID: id, Slots: 2}, time.Hour)
		require.NoError(t, err)

		claim := func() pipeline.Lease {
			got, err := c.Store.ClaimTasks(t.Context(), pipeline.Claim{
				RequestID: ulid.Make().String(), WorkerID: id, Session: session, Max: 1, Lease: time.Hour,
			})
			require.NoError(t, err)
			require.Len(t, got.Leases, 1)

			return got.Leases[0]
		}

		for _, encode := range []bool{false, true} {
			p.jobs = append(p.jobs, c.Submit(t))
			lease := claim()

			if encode {
				finishProbe(t, c, lease, id)
				lease = claim()
			}

			p.own[lease.Ref.TaskID] = id == p.id
			p.refs = append(p.refs, &tcoderv1.LeaseRef{TaskId: lease.Ref.TaskID, Attempt: uint32(lease.Ref.Attempt)})

			if id != p.id {
				p.held = append(p.held, p.task(t, lease.Ref.TaskID))
			}
		}
	}

	for _, ref := range p.refs[:4] {
		p.refs = append(p.refs, &tcoderv1.LeaseRef{TaskId: ref.GetTaskId(), Attempt: ref.GetAttempt() + 1})
	}

	for _, id := range []string{"nobody-0", "x", "-", "-1", "nobody-99999999999999999999", p.jobs[0].ID + "-00"} {
		p.refs = append(p.refs, &tcoderv1.LeaseRef{TaskId: id, Attempt: 1})
	}

	return p
}

// finishProbe ends a probe as its worker would.
func finishProbe(t *testing.T, c *celltest.Cell, lease pipeline.Lease, workerID string) {
	t.Helper()

	probe := media.Probe{
		Format: "mov,mp4", Duration: 10 * time.Second, SizeBytes: 1000,
		Streams: []media.Stream{{
			Kind: media.StreamVideo, Codec: "vp9", Width: 640, Height: 360, PixelFormat: "yuv420p",
			FrameRate: media.Rational{Num: 25, Den: 1}, NominalFrameRate: media.Rational{Num: 25, Den: 1}, Duration: 10 * time.Second,
		}},
	}
	spec, err := media.Resolve(lease.Job.Spec)
	require.NoError(t, err)
	plan, err := media.MakePlan(probe, spec, media.Limits{MaxDuration: time.Hour}, 1)
	require.NoError(t, err)

	result := pipeline.TaskResult{Ref: lease.Ref, WorkerID: workerID, Probe: &probe, Plan: &plan}
	for _, made := range media.Tasks(plan) {
		result.Tasks = append(result.Tasks, pipeline.NewTask{Kind: pipeline.KindEncode, Output: made.Output, Part: made.Part, Weight: made.Weight})
	}

	verdict, _, err := c.Store.FinishTask(t.Context(), result)
	require.NoError(t, err)
	require.Equal(t, pipeline.VerdictAccepted, verdict)
}

func (p *prey) task(t *testing.T, id string) pipeline.Task {
	t.Helper()

	job, index, ok := media.SplitTaskID(id)
	require.True(t, ok)

	return p.cell.Job(t, job).Tasks[index]
}

// requireUnharmed requires that the victim holds what it held, and lets all go.
func (p *prey) requireUnharmed(t *testing.T) {
	t.Helper()

	for _, task := range p.held {
		require.Equal(t, task, p.task(t, task.ID))
		require.Zero(t, p.cell.Job(t, task.JobID).Progress)
	}

	for _, job := range p.jobs {
		if !p.cell.Job(t, job.ID).State.Terminal() {
			_, err := p.cell.Store.CancelJob(t.Context(), job.ID)
			require.NoError(t, err)
		}

		require.NoError(t, p.cell.Store.DeleteJob(t.Context(), job.ID))
	}

	require.NoError(t, p.cell.Out.DeletePrefix(t.Context(), "out/"))
}

// require checks what the control plane says to an attacker.
func (p *prey) require(t *testing.T, m *tcoderv1.AttachResponse) {
	t.Helper()

	require.NotNil(t, m.GetMessage())

	for _, kept := range m.GetWelcome().GetKept() {
		require.True(t, p.own[kept.GetLease().GetTaskId()])
	}

	for _, renewed := range m.GetHeartbeat().GetRenewed() {
		require.True(t, p.own[renewed.GetLease().GetTaskId()])
	}

	if ack := m.GetReport(); ack != nil {
		require.NotZero(t, ack.GetVerdict())

		foreign, known := p.own[ack.GetLease().GetTaskId()]
		if known && !foreign {
			require.Equal(t, tcoderv1.ReportVerdict_REPORT_VERDICT_STALE, ack.GetVerdict())
		}
	}

	if ack := m.GetSegments(); ack != nil {
		require.True(t, p.own[ack.GetLease().GetTaskId()] || ack.GetVerdict() != tcoderv1.ReportVerdict_REPORT_VERDICT_ACCEPTED)
	}

	if sign := m.GetSign(); sign != nil {
		require.Equal(t, sign.GetRefused() == nil, len(sign.GetRequests()) > 0)

		for _, request := range sign.GetRequests() {
			require.Contains(t, request.GetUrl(), "/t1a1/", "it lies below the attempt's own folder")
			require.NotContains(t, request.GetUrl(), "..")
		}
	}

	if a := m.GetAssignment(); a != nil {
		own, known := p.own[a.GetLease().GetTaskId()]
		require.True(t, own || !known, "it is another worker's")
	}
}

// requireTyped requires that an error says what it is, in the API's terms, and
// is none of ours.
func requireTyped(t *testing.T, err error) {
	t.Helper()

	if errors.Is(err, io.EOF) {
		return
	}

	var coded *connect.Error

	require.ErrorAs(t, err, &coded)
	require.NotContains(t, []connect.Code{connect.CodeInternal, connect.CodeUnknown}, coded.Code(), "%v", err)
	require.NotEmpty(t, coded.Details(), "%v", err)
}

// FuzzAttach guarantees that no sequence of messages, by stream or by calls,
// breaks the control plane or harms another worker's attempts, and that a
// stream ends in peace or with a typed error.
func FuzzAttach(f *testing.F) {
	store := memstore.New(memstore.Config{})
	c := celltest.On(store)
	c.Replica(f, "a")

	pool := c.API("a")

	for kind := range byte(11) {
		for ref := range byte(5) {
			f.Add(kind%2 == 0, []byte{1, 0, 0, 2, 2, 3, kind, ref, 1, ref, 1, ref, 0, 0, 0, 0, 0, 0, 0, 0, kind + 1, ref})
		}
	}

	f.Add(true, []byte{1, 0, 0, 2, 2, 3, 2, 2, 3, 3, 1, 1, 5, 2, 0, 7, 0, 8, 9})
	f.Add(false, []byte{1, 0, 0, 2, 2, 3, 2, 2, 3, 3, 1, 1, 5, 2, 0, 7, 0, 8, 9})

	f.Fuzz(func(t *testing.T, calls bool, data []byte) {
		p := newPrey(t, c)
		s := &script{data: data, id: p.id, refs: p.refs}
		hello := s.hello()

		var messages []*tcoderv1.AttachRequest
		for len(s.data) > 0 && len(messages) < 50 {
			messages = append(messages, s.message())
		}

		if calls {
			attackByCalls(t, p, pool, hello, messages)
		} else {
			attackByStream(t, p, pool, hello, messages)
		}

		p.requireUnharmed(t)
	})
}

func attackByStream(
	t *testing.T, p *prey, pool tcoderv1connect.PoolServiceClient, hello *tcoderv1.Hello, messages []*tcoderv1.AttachRequest,
) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	stream, err := pool.Attach(ctx)
	require.NoError(t, err)

	first := &tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Hello{Hello: hello}}
	for _, m := range append([]*tcoderv1.AttachRequest{first}, messages...) {
		if err := stream.Send(m); err != nil {
			break // Receive tells why
		}
	}

	_ = stream.CloseRequest()

	for {
		m, err := stream.Receive()
		if err != nil {
			requireTyped(t, err)

			break
		}

		p.require(t, m)
	}

	_ = stream.CloseResponse()
}

func attackByCalls(
	t *testing.T, p *prey, pool tcoderv1connect.PoolServiceClient, hello *tcoderv1.Hello, messages []*tcoderv1.AttachRequest,
) {
	t.Helper()

	var session int64

	for len(messages) > 0 {
		n := min(3, len(messages))

		answer, err := pool.Sync(t.Context(), &tcoderv1.SyncRequest{
			Hello: hello, Session: session, Messages: messages[:n], Received: uint64(n),
		})
		messages = messages[n:]

		if err != nil {
			requireTyped(t, err)

			continue
		}

		session = answer.GetSession()

		for _, m := range answer.GetMessages() {
			p.require(t, m)
		}
	}

	// A session of calls goes on without any, and would be given the next prey.
	_, err := pool.Sync(t.Context(), &tcoderv1.SyncRequest{Hello: &tcoderv1.Hello{WorkerId: p.id, Slots: 1, Draining: true}})
	require.NoError(t, err)
}
