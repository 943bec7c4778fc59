package pool

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

const (
	probeTimeLimit = 2 * time.Minute
	minEncodeLimit = time.Minute
	maxEncodeLimit = 24 * time.Hour
	// encodeSlowness is how many times longer than what it makes an encode may take.
	encodeSlowness = 20
)

// newLease remembers a lease that begins, or is kept, now for so long. When its
// attempt started is told by the store's clock, as is when the lease runs out:
// this replica's may be another.
func newLease(l pipeline.Lease, length time.Duration) *lease {
	now := time.Now()
	started := now
	if n := len(l.Task.Attempts); n > 0 && !l.Task.Attempts[n-1].Started.IsZero() {
		started = now.Add(-max(0, l.Expires.Add(-length).Sub(l.Task.Attempts[n-1].Started)))
	}
	return &lease{
		ref: l.Ref, task: l.Task, job: l.Job,
		since: now, started: started, signedAt: now,
		renewal: pipeline.Renewal{Ref: l.Ref},
	}
}

// timeLimit is how long an attempt may run: by the length of what it makes, and
// for a chunk the source's once, which may have to be read up to its start.
func timeLimit(l *lease) time.Duration {
	if l.task.Kind == pipeline.KindProbe || l.job.Plan == nil {
		return probeTimeLimit
	}
	_, length := l.job.Plan.MadeBy(l.task.Output, l.task.Part)
	limit := encodeSlowness * length
	if length < l.job.Plan.Duration {
		limit += l.job.Plan.Duration
	}
	return min(maxEncodeLimit, max(minEncodeLimit, limit))
}

// urlLife is how long URLs for a lease last from now.
func (s *Service) urlLife() time.Duration { return s.cfg.Lease + s.cfg.URLGrace }

func (s *Service) signSource(ctx context.Context, l *lease) (*tcoderv1.SignedRequest, error) {
	signed, err := s.deps.In.PresignGet(ctx, l.job.Source.ObjectKey, objectstore.GetOptions{Expires: s.urlLife()})
	if err != nil {
		return nil, fmt.Errorf("sign source of job %s: %w", l.job.ID, err)
	}
	return mapper.SignedRequestToProto(signed), nil
}

// assignment builds what a worker is told of a task. An error means that the
// task can't be run as it is.
func (s *Service) assignment(ctx context.Context, l *lease) (*tcoderv1.AttachResponse, error) {
	source, err := s.signSource(ctx, l)
	if err != nil {
		return nil, err
	}
	a := &tcoderv1.Assignment{
		Lease:           mapper.LeaseRefToProto(l.ref),
		JobId:           l.job.ID,
		Kind:            mapper.TaskKindToProto(l.task.Kind),
		Source:          source,
		SourceSizeBytes: uint64(max(0, l.job.Source.SizeBytes)),
		SourceEtag:      l.job.Source.ETag,
		TimeLimit:       durationpb.New(timeLimit(l)),
		MaxPutBytes:     uint64(s.cfg.MaxPutBytes),
	}
	switch l.task.Kind {
	case pipeline.KindProbe:
		a.Work = &tcoderv1.Assignment_Probe{Probe: &tcoderv1.ProbeWork{Limits: mapper.LimitsToProto(s.limits(l.job.Project))}}
	case pipeline.KindEncode, pipeline.KindAudio:
		output, ok := plannedOutput(l.job, l.task)
		if ok {
			output, ok = output.Share(l.task.Part)
		}
		if !ok || l.job.Probe == nil {
			return nil, fmt.Errorf("task %s: its job has no plan for part %d of output %q", l.task.ID, l.task.Part, l.task.Output)
		}
		a.Work = &tcoderv1.Assignment_Encode{Encode: &tcoderv1.EncodeWork{
			Output:   mapper.OutputPlanToProto(output),
			Source:   mapper.ProbeToProto(*l.job.Probe),
			Duration: durationpb.New(l.job.Plan.Duration),
			Limits:   mapper.LimitsToProto(s.limits(l.job.Project)),
		}}
	case pipeline.KindAssemble:
		work, err := s.assembleWork(ctx, l)
		if err != nil {
			return nil, err
		}
		a.Work = &tcoderv1.Assignment_Assemble{Assemble: work}
	case pipeline.KindFetch, pipeline.KindImages:
		return nil, fmt.Errorf("task %s: workers don't know the kind %s", l.task.ID, l.task.Kind)
	}
	return &tcoderv1.AttachResponse{Message: &tcoderv1.AttachResponse_Assignment{Assignment: a}}, nil
}

// plannedOutput returns the output that a task works for; false for a task
// that makes nothing of one.
func plannedOutput(job pipeline.Job, task pipeline.Task) (media.OutputPlan, bool) {
	switch task.Kind {
	case pipeline.KindEncode, pipeline.KindAudio, pipeline.KindAssemble:
	case pipeline.KindProbe, pipeline.KindFetch, pipeline.KindImages:
		return media.OutputPlan{}, false
	}
	if job.Plan == nil {
		return media.OutputPlan{}, false
	}
	at := slices.IndexFunc(job.Plan.Outputs, func(o media.OutputPlan) bool { return o.Name == task.Output })
	if at < 0 {
		return media.OutputPlan{}, false
	}
	return job.Plan.Outputs[at], true
}

// attemptPrefix is the folder that an attempt writes to, with the closing slash.
func attemptPrefix(job pipeline.Job, task pipeline.Task, ref pipeline.LeaseRef) (string, error) {
	_, index, ok := media.SplitTaskID(ref.TaskID)
	if !ok {
		return "", fmt.Errorf("task id %q is none", ref.TaskID)
	}
	return media.OutputPrefix(job.Project, job.ID, task.Output) + media.AttemptDir(index, ref.Attempt) + "/", nil
}
