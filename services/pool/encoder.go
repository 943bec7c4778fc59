package pool

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// A job whose codec no worker has fails at once and says so: trying it again
// would end the same, and waiting for a worker that may never come would tell
// its client nothing. A retry of the job is what it takes once there is one.
// Where some workers have the codec, the others hand its tasks back. A worker
// that was there within the last minute has it, too: it may be on its way from
// one replica to another.

// encodes reports whether a worker can make a codec. One that tells of no
// encoder is taken at its word once it has tried.
func encodes(w pipeline.Worker, codec media.VideoCodec) bool {
	return codec == "" || len(w.Encoders) == 0 || slices.Contains(w.Encoders, codec)
}

// present are the workers that take tasks.
func present(workers []pipeline.Worker) []pipeline.Worker {
	return slices.DeleteFunc(slices.Clone(workers), func(w pipeline.Worker) bool { return !w.Attached || w.Draining })
}

// encoderFor is the codec that an output is encoded to; empty if its picture
// is copied, or there is none.
func encoderFor(o media.OutputPlan) media.VideoCodec {
	if len(o.Assembled) > 0 || o.Video == nil {
		return ""
	}
	if !slices.ContainsFunc(o.Video.Renditions, func(r media.RenditionPlan) bool { return !r.Copy }) {
		return ""
	}
	return o.Video.Codec
}

// missingEncoder tells that none of the workers can make a plan; nil if each
// output has one, or nobody is there to say.
func missingEncoder(workers []pipeline.Worker, outputs ...media.OutputPlan) *pipeline.Failure {
	if len(present(workers)) == 0 {
		return nil
	}
	for _, o := range outputs {
		codec := encoderFor(o)
		if slices.ContainsFunc(workers, func(w pipeline.Worker) bool { return !w.Draining && encodes(w, codec) }) {
			continue
		}
		return &pipeline.Failure{Reason: pipeline.ReasonEncoderMissing, Message: fmt.Sprintf(
			"No worker can encode %s. Ask for another codec, or attach a worker whose FFmpeg can (tcoder doctor tells) and retry the job.",
			strings.ToUpper(string(codec)))}
	}
	return nil
}

// unable fails a task that its worker has no encoder for, and reports whether
// it did: for good if nobody has it, and else for another worker to take, which
// is asked first from now on.
func (s *Service) unable(ctx context.Context, sess *session, l *lease) bool {
	output, planned := plannedOutput(l.job, l.task)
	if share, ok := output.Share(l.task.Part); planned && ok {
		output = share
	}
	if !planned || encodes(sess.worker, encoderFor(output)) {
		return false
	}
	s.settleUnsent(ctx, sess, l, func(ctx context.Context) error {
		workers, err := s.deps.Store.ListWorkers(ctx)
		if err != nil {
			return err
		}
		class, failure := pipeline.FaultInput, missingEncoder(workers, output)
		if failure == nil {
			sess.doubt()
			class, failure = pipeline.FaultMachine, &pipeline.Failure{
				Reason: pipeline.ReasonEncoderMissing, Message: "This worker has no encoder for the codec; another one has.",
			}
		}
		_, err = s.fail(ctx, sess, l.ref, class, *failure)
		return err
	})
	return true
}
