package publish

import (
	"context"
	"fmt"
	"sync"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// maxViews bounds the streams that are remembered: reading one from its start
// costs time, nothing else.
const maxViews = 256

// view is what this replica knows of a job's stream and of what was published
// of it. One call has it at a time.
type view struct {
	run     int
	version int64
	plan    media.Plan
	growth  media.Growth
	etags   etags
}

// update takes in what was read.
func (v *view) update(s pipeline.Stream) {
	if s.Run != v.run {
		*v = view{run: s.Run, etags: etags{}}
		if s.Plan != nil {
			v.plan = *s.Plan
		}
	}
	for _, c := range s.Commits {
		v.growth.Add(c.Output, c.Part, media.AttemptDir(c.Task, c.Attempt), c.Uploaded)
	}
	v.version = s.Version
}

// views are the streams that are remembered, by job.
type views struct {
	mu   sync.Mutex
	jobs map[string]*view
}

// take returns what is known of a job's stream, to the caller alone.
func (vs *views) take(jobID string) *view {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v := vs.jobs[jobID]
	delete(vs.jobs, jobID)
	if v == nil {
		return &view{etags: etags{}}
	}
	return v
}

// keep remembers it. Where there are too many, any other one goes.
func (vs *views) keep(jobID string, v *view) {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	for id := range vs.jobs {
		if len(vs.jobs) < maxViews {
			break
		}
		delete(vs.jobs, id)
	}
	vs.jobs[jobID] = v
}

// Stream publishes what has been committed of a job that still runs, as EVENT
// playlists that only grow, and says so in the store, which ends the duty. Of
// a job that ended without success it removes them. After an error it can be
// called again.
func (p *Publisher) Stream(ctx context.Context, jobID string) error {
	if err := p.stream(ctx, jobID); err != nil {
		return fmt.Errorf("publish stream of job %s: %w", jobID, err)
	}
	return nil
}

func (p *Publisher) stream(ctx context.Context, jobID string) error {
	v := p.views.take(jobID)
	s, err := p.jobs.ReadStream(ctx, jobID, v.run, v.version)
	if err != nil {
		if pipeline.ReasonOf(err) != pipeline.ReasonJobNotFound {
			return err
		}
		_, err = p.jobs.StreamPublished(ctx, pipeline.Publication{JobID: jobID, Run: v.run})
		return err
	}
	v.update(s)
	p.log.DebugContext(ctx, "stream read", "job_id", jobID, "run", v.run, "version", v.version, "state", string(s.State))
	publication := pipeline.Publication{JobID: jobID, Run: v.run, Version: v.version}
	if s.State != pipeline.JobRunning {
		if err := p.withdraw(ctx, jobID, v.run, v.keys(s.Project, jobID)); err != nil {
			return err
		}
		_, err = p.jobs.StreamPublished(ctx, publication)
		return err
	}
	var manifests []media.Manifest
	for _, plan := range v.plan.Outputs {
		grown := v.growth.Grow(plan, media.OutputPrefix(s.Project, jobID, plan.Name), v.run)
		if !grown.Playable {
			continue // nobody could find what there is
		}
		manifests = append(manifests, grown.Manifests...)
		publication.Playable = true
		for _, r := range grown.Renditions {
			publication.Renditions = append(publication.Renditions, pipeline.RenditionProgress{
				Output: plan.Name, Name: r.Name, Playable: r.Duration,
			})
		}
	}
	if err := p.write(ctx, manifests, v.etags); err != nil {
		return err
	}
	live, err := p.jobs.StreamPublished(ctx, publication)
	if err != nil {
		return err
	}
	if !live {
		return p.withdraw(ctx, jobID, v.run, v.keys(s.Project, jobID))
	}
	if publication.Playable && !s.Playable {
		p.log.InfoContext(ctx, "job is playable", "job_id", jobID, "run", v.run)
	}
	// A run that isn't planned yet is read from its start again: the store tells
	// the plan of a run once.
	if len(v.plan.Outputs) > 0 {
		p.views.keep(jobID, v)
	}
	return nil
}

// keys are the keys of all manifests of a job.
func (v *view) keys(project, jobID string) []string {
	var keys []string
	for _, o := range v.plan.Outputs {
		keys = append(keys, media.ManifestKeys(project, jobID, o)...)
	}
	return keys
}
