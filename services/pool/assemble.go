package pool

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/objectstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// pieces are what a file is put together of.
type pieces struct {
	from         string // name of the output that they belong to
	video, audio media.Joined
	names        map[string]bool // below the job's folder
}

// list names the pieces of one track.
func (p *pieces) list(j media.Joined) []*tcoderv1.Piece {
	if len(j.Segments) == 0 {
		return nil
	}
	list := make([]*tcoderv1.Piece, 0, 1+len(j.Segments))
	for _, o := range j.Objects() {
		list = append(list, &tcoderv1.Piece{Name: p.from + "/" + o.URI(), SizeBytes: uint64(o.SizeBytes)})
	}
	return list
}

// assembleWork tells a worker what to put together.
func (s *Service) assembleWork(ctx context.Context, l *lease) (*tcoderv1.AssembleWork, error) {
	p, err := s.pieces(ctx, l, l.job.ID, l.task)
	if err != nil {
		return nil, err
	}
	output, _ := plannedOutput(l.job, l.task)
	share, _ := output.Share(l.task.Part)
	return &tcoderv1.AssembleWork{
		Output: mapper.OutputPlanToProto(share),
		Video:  p.list(p.video), Audio: p.list(p.audio),
		FrameCount:    uint64(p.video.Result.FrameCount),
		VideoDuration: durationpb.New(p.video.Result.Duration),
		AudioDuration: durationpb.New(p.audio.Result.Duration),
	}, nil
}

// pieces returns what an assemble task is about: what the tasks before it made,
// which doesn't change any more. l, if there is one, remembers it.
func (s *Service) pieces(ctx context.Context, l *lease, jobID string, task pipeline.Task) (*pieces, error) {
	if l != nil {
		if p := l.pieces.Load(); p != nil {
			return p, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	job, err := s.deps.Store.GetJob(ctx, jobID)
	if err != nil {
		return nil, fmt.Errorf("pieces of task %s: %w", task.ID, err)
	}
	growth := &media.Growth{}
	if pipeline.Repeated(job) {
		stream, err := s.deps.Store.ReadStream(ctx, jobID, 0, 0)
		if err != nil {
			return nil, fmt.Errorf("pieces of task %s: %w", task.ID, err)
		}
		growth = stream.Growth(job.Run)
	}
	p, err := piecesOf(job, task, growth)
	if err != nil {
		return nil, fmt.Errorf("pieces of task %s: %w", task.ID, err)
	}
	if l != nil {
		l.pieces.Store(p)
	}
	return p, nil
}

func piecesOf(job pipeline.Job, task pipeline.Task, growth *media.Growth) (*pieces, error) {
	output, planned := plannedOutput(job, task)
	output, ok := output.Share(task.Part)
	if !planned || !ok || len(output.Assembled) != 1 {
		return nil, fmt.Errorf("output %q has no assembled file %d", task.Output, task.Part)
	}
	p := &pieces{from: output.Assembled[0].From, names: map[string]bool{}}
	at := slices.IndexFunc(job.Plan.Outputs, func(o media.OutputPlan) bool { return o.Name == p.from })
	if at < 0 {
		return nil, fmt.Errorf("there is no output %q", p.from)
	}
	parts := pipeline.Parts(job, growth)[p.from]
	p.video = media.Join(output.Assembled[0].Rendition, parts)
	if audio := job.Plan.Outputs[at].Audio; audio != nil {
		p.audio = media.Join(audio.Name, parts)
	}
	for _, j := range []media.Joined{p.video, p.audio} {
		for _, piece := range p.list(j) {
			p.names[piece.GetName()] = true
		}
	}
	if len(p.video.Segments) == 0 {
		return nil, fmt.Errorf("output %q has no segments", p.from)
	}
	return p, nil
}

// signPieces signs what an assemble task reads.
func (s *Service) signPieces(ctx context.Context, sess *session, l *lease, req *tcoderv1.SignRequest) ([]*tcoderv1.SignedRequest, *pipeline.Failure) {
	p, err := s.pieces(ctx, l, l.job.ID, l.task)
	if err != nil {
		sess.log.WarnContext(ctx, "pieces can't be found", "task_id", l.ref.TaskID, "error", err)
		reason := pipeline.ReasonInternal
		if transient(err) {
			reason = pipeline.ReasonStateUnavailable
		}
		return nil, &pipeline.Failure{Reason: reason, Message: "The pieces can't be found."}
	}
	requests := make([]*tcoderv1.SignedRequest, 0, len(req.GetObjects()))
	for _, o := range req.GetObjects() {
		if !p.names[o.GetName()] {
			return nil, &pipeline.Failure{Reason: pipeline.ReasonOutputInvalid, Message: "This task doesn't read that object."}
		}
		signed, err := s.deps.Out.PresignGet(ctx, media.JobPrefix(l.job.Project, l.job.ID)+o.GetName(), objectstore.GetOptions{Expires: s.urlLife()})
		if err != nil {
			sess.log.ErrorContext(ctx, "piece can't be signed", "task_id", l.ref.TaskID, "error", err)
			return nil, &pipeline.Failure{Reason: pipeline.ReasonInternal, Message: "The pieces can't be signed."}
		}
		requests = append(requests, mapper.SignedRequestToProto(signed))
	}
	return requests, nil
}
