package worker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

func getReport(m *tcoderv1.AttachRequest) *tcoderv1.TaskReport { return m.GetReport() }

func getSign(m *tcoderv1.AttachRequest) *tcoderv1.SignRequest { return m.GetSign() }

func getHeartbeat(m *tcoderv1.AttachRequest) *tcoderv1.Heartbeat { return m.GetHeartbeat() }

func getLeave(m *tcoderv1.AttachRequest) *tcoderv1.LeaveRequest { return m.GetLeave() }

func getDraining(m *tcoderv1.AttachRequest) *tcoderv1.Draining { return m.GetDraining() }

func names(leases []*tcoderv1.LeaseRef) []string {
	ids := []string{}
	for _, lease := range leases {
		ids = append(ids, lease.GetTaskId())
	}

	return ids
}

// TestHello guarantees that a worker says who it is, with its credential.
func TestHello(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, func(cfg *Config) { cfg.Encoders = []tcoderv1.VideoCodec{tcoderv1.VideoCodec_VIDEO_CODEC_H264} })
		_, hello := b.plane.attached(t)

		require.Equal(t, "w1", hello.GetWorkerId())
		require.Equal(t, "m1", hello.GetMachineId())
		require.Equal(t, "test", hello.GetVersion())
		require.EqualValues(t, 2, hello.GetSlots())
		require.Len(t, hello.GetEncoders(), 1)
		require.NotZero(t, hello.GetCpus())
		require.Empty(t, hello.GetHeld())
		require.Equal(t, "Bearer open sesame", b.plane.token)
	})
}

// TestReconnectKeepsAttempt guarantees that a lost stream neither stops nor
// restarts a task, and that its report is sent until it is acknowledged.
func TestReconnectKeepsAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 3))
		r := b.started(t)
		before := b.plane.dials()

		s.cut(connect.NewError(connect.CodeUnavailable, errors.New("draining")))
		s, hello := b.plane.welcomed(t, &tcoderv1.Welcome{Kept: []*tcoderv1.LeaseRenewal{{
			Lease:  &tcoderv1.LeaseRef{TaskId: "job-0", Attempt: 3},
			Source: &tcoderv1.SignedRequest{Url: "http://store/source?" + secret + "=2"},
		}}})
		require.Equal(t, []string{"job-0"}, names(hello.GetHeld()))
		require.EqualValues(t, 3, hello.GetHeld()[0].GetAttempt())
		synctest.Wait()
		require.NoError(t, r.ctx.Err())

		fresh, _ := r.source.current()
		require.Contains(t, fresh.GetUrl(), secret+"=2", "Welcome brings a fresh source")
		require.Less(t, b.plane.dials()[1].Sub(before[0]), 200*time.Millisecond, "the first retry is quick")

		s.assign(t, task("job-0", 3)) // the control plane says it again
		r.complete()
		require.Equal(t, "mp4", first(t, s, getReport).GetProbe().GetFormat())

		s.cut(errors.New("crash")) // before it could acknowledge
		s, hello = b.plane.welcomed(t, &tcoderv1.Welcome{})
		require.Equal(t, []string{"job-0"}, names(hello.GetHeld()))

		report := first(t, s, getReport)
		require.Equal(t, "mp4", report.GetProbe().GetFormat())
		s.acknowledge(t, report.GetLease())
		synctest.Wait()

		s.cut(nil)
		_, hello = b.plane.attached(t)
		require.Empty(t, hello.GetHeld())
		require.Empty(t, b.runs, "the attempt ran once")
		require.NotContains(t, b.log.String(), secret)
	})
}

// TestReportSentAgain guarantees that a report without an answer is repeated
// on a stream that lives.
func TestReportSentAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 1))
		b.started(t).complete()

		first(t, s, getReport)
		start := time.Now()
		lease := first(t, s, getReport).GetLease()
		require.Equal(t, 15*time.Second, time.Since(start))
		s.acknowledge(t, lease)
	})
}

// TestLeaseLost guarantees that a task whose lease is lost is stopped and
// forgotten at once, however the worker learns of it.
func TestLeaseLost(t *testing.T) {
	t.Parallel()

	lease := task("job-0", 1).GetLease()

	for name, tell := range map[string]func(t *testing.T, b *bundle, s *planeStream, r *run) *planeStream{
		"by Welcome": func(t *testing.T, b *bundle, s *planeStream, _ *run) *planeStream {
			t.Helper()
			s.cut(nil)
			s, _ = b.plane.welcomed(t, &tcoderv1.Welcome{Lost: []*tcoderv1.LeaseRef{lease}})

			return s
		},
		"by HeartbeatAck": func(t *testing.T, _ *bundle, s *planeStream, _ *run) *planeStream {
			t.Helper()
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Heartbeat{
				Heartbeat: &tcoderv1.HeartbeatAck{Lost: []*tcoderv1.LeaseRef{lease}},
			}})

			return s
		},
		"by StopTask": func(t *testing.T, _ *bundle, s *planeStream, _ *run) *planeStream {
			t.Helper()
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Stop{
				Stop: &tcoderv1.StopTask{Lease: lease},
			}})

			return s
		},
		"by a refused SignRequest": func(t *testing.T, _ *bundle, s *planeStream, r *run) *planeStream {
			t.Helper()
			go func() { _, _ = r.Sign(r.ctx, []*tcoderv1.EncodedObject{{Name: "a"}}) }()

			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Sign{Sign: &tcoderv1.SignResponse{
				RequestId: first(t, s, getSign).GetRequestId(),
				Refused:   &tcoderv1.Failure{Reason: tcoderv1.ErrorReason_ERROR_REASON_LEASE_LOST},
			}}})

			return s
		},
		"by a newer attempt": func(t *testing.T, b *bundle, s *planeStream, _ *run) *planeStream {
			t.Helper()
			s.assign(t, task("job-0", 2))
			b.started(t).complete()
			require.EqualValues(t, 2, first(t, s, getReport).GetLease().GetAttempt())
			s.acknowledge(t, task("job-0", 2).GetLease())

			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := setup(t, nil)
				s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
				s.assign(t, task("job-0", 1))
				r := b.started(t)

				s = tell(t, b, s, r)
				<-r.ended
				require.ErrorIs(t, context.Cause(r.ctx), errStopped)

				// It is forgotten: no report of it comes, and no heartbeat names it.
				require.Empty(t, first(t, s, getHeartbeat).GetRunning())
				s.cut(nil)

				_, hello := b.plane.attached(t)
				require.Empty(t, hello.GetHeld())
			})
		})
	}
}

// TestHeartbeats guarantees that every interval renews all that is held, and
// that progress travels at most four times a second.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		start := time.Now()
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})

		require.Empty(t, first(t, s, getHeartbeat).GetRunning())
		require.Equal(t, 5*time.Second, time.Since(start), "an idle worker is heard of, too")

		s.assign(t, task("job-0", 1))
		s.assign(t, task("job-1", 1))
		runs := map[string]*run{}

		for range 2 {
			r := b.started(t)
			runs[r.Assignment.GetLease().GetTaskId()] = r
		}

		runs["job-1"].complete() // its report is never acknowledged: it stays held
		first(t, s, getReport)

		beat := first(t, s, getHeartbeat)
		require.Len(t, beat.GetRunning(), 2)
		require.Equal(t, "job-0", beat.GetRunning()[0].GetLease().GetTaskId())
		require.Equal(t, "job-1", beat.GetRunning()[1].GetLease().GetTaskId())

		// A hundred reports of progress in a second.
		stop := time.Now().Add(time.Second)
		counted := make(chan int)

		go func() {
			beats := 0

			for message := range s.in {
				if message.GetHeartbeat() != nil {
					beats++
				}

				if !time.Now().Before(stop) {
					break
				}
			}

			counted <- beats
		}()

		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()

		for i := range 100 {
			<-tick.C
			runs["job-0"].Progress(&tcoderv1.TaskProgress{
				Lease: runs["job-0"].Assignment.GetLease(), Fraction: float64(i) / 100,
			})
		}

		beats := <-counted
		require.GreaterOrEqual(t, beats, 3)
		require.LessOrEqual(t, beats, 5)

		// The last word gets through, too.
		require.InDelta(t, 0.99, first(t, s, getHeartbeat).GetRunning()[0].GetFraction(), 0)
	})
}

// TestSilentControlPlane guarantees that a stream on which nothing is answered
// is given up, and that the task goes on meanwhile.
func TestSilentControlPlane(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		start := time.Now()

		b.plane.attached(t) // and never welcomed
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		require.InDelta(t, 10, time.Since(start).Seconds(), 0.2)

		s.assign(t, task("job-0", 1))
		r := b.started(t)
		start = time.Now()

		_, hello := b.plane.attached(t)
		require.InDelta(t, 15, time.Since(start).Seconds(), 0.2)
		require.Equal(t, []string{"job-0"}, names(hello.GetHeld()))
		require.NoError(t, r.ctx.Err())
	})
}

// TestControlPlaneAway guarantees that a worker tries for as long as it takes,
// with pauses that grow to five seconds, and keeps its task for hours.
func TestControlPlaneAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 1))
		r := b.started(t)

		b.plane.leave(true)
		s.cut(errors.New("crash"))

		away := time.NewTimer(3 * time.Hour)
		<-away.C
		require.NoError(t, r.ctx.Err())

		dials := b.plane.dials()
		require.Greater(t, len(dials), 2000)

		for i := 10; i < len(dials); i++ {
			require.InDelta(t, 3.75, dials[i].Sub(dials[i-1]).Seconds(), 1.3)
		}

		b.plane.leave(false)

		_, hello := b.plane.attached(t)
		require.Equal(t, []string{"job-0"}, names(hello.GetHeld()))
	})
}

// TestSigning guarantees that answers find their questions: out of order, and
// across streams, where what is open is asked again under its old number.
func TestSigning(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 1))
		r := b.started(t)

		type answer struct {
			requests []*tcoderv1.SignedRequest
			err      error
		}

		ask := func(name string) chan answer {
			answers := make(chan answer, 1)

			go func() {
				requests, err := r.Sign(r.ctx, []*tcoderv1.EncodedObject{{Name: name, SizeBytes: 1}})
				answers <- answer{requests, err}
			}()

			return answers
		}
		reply := func(s *planeStream, asked *tcoderv1.SignRequest) {
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Sign{Sign: &tcoderv1.SignResponse{
				RequestId: asked.GetRequestId(),
				Requests:  []*tcoderv1.SignedRequest{{Url: "for " + asked.GetObjects()[0].GetName()}},
			}}})
		}

		a := ask("a")
		askedA := first(t, s, getSign)
		bb := ask("b")
		askedB := first(t, s, getSign)
		c := ask("c")
		askedC := first(t, s, getSign)

		reply(s, askedB)
		require.Equal(t, "for b", (<-bb).requests[0].GetUrl())

		s.cut(nil)
		s, _ = b.plane.welcomed(t, &tcoderv1.Welcome{})
		require.Equal(t, askedA.GetRequestId(), first(t, s, getSign).GetRequestId())
		require.Equal(t, askedC.GetRequestId(), first(t, s, getSign).GetRequestId())

		reply(s, askedC)
		reply(s, askedB) // nobody asks any more
		reply(s, askedA)
		require.Equal(t, "for c", (<-c).requests[0].GetUrl())
		require.Equal(t, "for a", (<-a).requests[0].GetUrl())

		d := ask("d")
		asked := first(t, s, getSign)
		require.Greater(t, asked.GetRequestId(), askedC.GetRequestId())
		s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Sign{Sign: &tcoderv1.SignResponse{
			RequestId: asked.GetRequestId(),
			Refused:   &tcoderv1.Failure{Reason: tcoderv1.ErrorReason_ERROR_REASON_STATE_UNAVAILABLE},
		}}})

		var refusal *signRefusedError

		require.ErrorAs(t, (<-d).err, &refusal)
		require.True(t, refusal.passing())
	})
}

// TestLeave guarantees that an idle worker asks to leave and does when it may,
// and that work which comes instead is done.
func TestLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		idle := durationOf(5 * time.Minute)
		start := time.Now()
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{IdleThreshold: idle})

		first(t, s, getLeave)
		require.Equal(t, 5*time.Minute, time.Since(start))

		s.assign(t, task("job-0", 1)) // instead of leave
		b.started(t).complete()

		start = time.Now()
		report := first(t, s, getReport)
		s.acknowledge(t, report.GetLease())

		first(t, s, getLeave)
		require.InDelta(t, 300, time.Since(start).Seconds(), 1)

		s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_LeaveGranted{
			LeaveGranted: &tcoderv1.LeaveGranted{},
		}})
		s.hungUp(t)
		require.NoError(t, b.returned(t))
	})
}

// TestRefusedMessages guarantees that a message that the control plane refuses
// isn't said for ever: after three sessions the task says in a few words that it
// failed, and after three more it is forgotten.
func TestRefusedMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		refusal := withReason(t, connect.CodeInvalidArgument, tcoderv1.ErrorReason_ERROR_REASON_REQUEST_INVALID)
		s, _ := b.plane.welcomed(t, &tcoderv1.Welcome{})
		s.assign(t, task("job-0", 1))
		s.assign(t, task("job-1", 1))
		b.started(t).complete()
		b.started(t)

		for range maxRefused {
			require.Nil(t, first(t, s, getReport).GetFault())
			at := time.Now()
			s.cut(refusal)
			s, _ = b.plane.welcomed(t, &tcoderv1.Welcome{})
			require.Greater(t, time.Since(at), time.Second, "it doesn't insist")
		}
		for range maxRefused {
			require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE, first(t, s, getReport).GetFault().GetFailure().GetReason())
			s.cut(refusal)
			s, _ = b.plane.attached(t)
			s.send(t, &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Welcome{Welcome: &tcoderv1.Welcome{}}})
		}
		require.Len(t, first(t, s, getHeartbeat).GetRunning(), 1, "the one that has said nothing goes on")
	})
}

// withReason is an error of the control plane.
func withReason(t *testing.T, code connect.Code, reason tcoderv1.ErrorReason) error {
	t.Helper()

	refusal := connect.NewError(code, errors.New("refused"))
	detail, err := connect.NewErrorDetail(&tcoderv1.ErrorDetail{Reason: reason})
	require.NoError(t, err)
	refusal.AddDetail(detail)

	return refusal
}

// TestIncompatible guarantees that a worker which the control plane can never
// serve gives up, and that other refusals are tried again.
func TestIncompatible(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, nil)
		s, _ := b.plane.attached(t)
		s.cut(connect.NewError(connect.CodeUnauthenticated, errors.New("who?")))

		s, _ = b.plane.attached(t)
		s.cut(withReason(t, connect.CodeFailedPrecondition, tcoderv1.ErrorReason_ERROR_REASON_WORKER_INCOMPATIBLE))

		require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(b.returned(t)))
	})
}
