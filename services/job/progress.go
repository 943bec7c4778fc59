package job

import (
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// A guess at the time that is left needs so much of a run to go by.
	etaAfter   = 2 * time.Second
	etaPercent = 2.0
)

// tell completes what the store tells of a job's progress, for a reader at a
// moment: the stages, the time that is left, how much of each rendition can be
// played, and where.
func tell(j pipeline.Job, now time.Time) pipeline.Job {
	p := &j.Progress
	p.Stages = stagesOf(j)
	if j.State != pipeline.JobRunning || j.Plan == nil {
		return j
	}
	// Work done so far says how fast the rest goes.
	if spent := now.Sub(j.Times.Planned); p.ETA == 0 && spent >= etaAfter && p.Percent >= etaPercent {
		p.ETA = time.Duration(float64(spent) * (100 - p.Percent) / p.Percent).Round(time.Second)
	}
	outputs := map[string]bool{}
	renditions := make([]pipeline.RenditionProgress, 0, len(p.Renditions))
	for _, r := range p.Renditions {
		if j.Plan.Duration > 0 {
			r.Percent = min(100, 100*float64(r.Playable)/float64(j.Plan.Duration))
		}
		renditions = append(renditions, r)
		if !outputs[r.Output] {
			outputs[r.Output] = true
			j.Playable = append(j.Playable, pipeline.PlayableOutput{
				Output: r.Output, ObjectKey: media.MasterKey(j.Project, j.ID, r.Output),
			})
		}
	}
	p.Renditions = renditions

	return j
}

// stagesOf are the stages of a job that has begun, as far as each is.
func stagesOf(j pipeline.Job) []pipeline.StageProgress {
	if j.Times.Started.IsZero() {
		return nil
	}
	probe, encode, publish := 0.0, 0.0, 0.0
	if !j.Times.Planned.IsZero() {
		probe, encode = 100, j.Progress.Percent
	}
	if j.State == pipeline.JobCompleted {
		publish = 100
	} else if probe == 100 && made(j) {
		encode = 100
	}

	return []pipeline.StageProgress{
		{Stage: pipeline.StageProbe, Percent: probe},
		{Stage: pipeline.StageEncode, Percent: encode},
		{Stage: pipeline.StagePublish, Percent: publish},
	}
}

// made reports whether all tasks of a run are done, as far as they are told.
func made(j pipeline.Job) bool {
	for _, t := range j.Tasks {
		if t.Run == j.Run && t.State != pipeline.TaskDone {
			return false
		}
	}

	return len(j.Tasks) > 0
}
