package job

import (
	"slices"
	"time"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

const (
	// How fast a run is, and a guess at the time that is left, need so much of it
	// to go by.
	paceAfter  = 2 * time.Second
	etaPercent = 2.0
	// Of work that was lost more than this isn't made up for yet.
	lostPercent = 0.1
	// The most percent of a file that isn't there yet.
	unfinished = 99.9
)

// tell completes what the store tells of a job's progress, for a reader at a
// moment: the stages, the pace and the time that is left, how far each
// rendition is, and what can be played, where.
func tell(j pipeline.Job, now time.Time) pipeline.Job {
	p := &j.Progress
	p.Stages = stagesOf(j)
	if j.Plan == nil {
		return j
	}
	pace(&j, now)
	if j.State != pipeline.JobRunning {
		return j
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
	renditions = append(renditions, filesOf(j)...)
	p.Renditions = renditions

	return j
}

// pace tells how much of a job's media time is made, how fast, and when the
// rest will be: all from the share of the work that is done now. What a task
// told of itself isn't the job's: the sound is made a hundred times as fast as
// the picture.
func pace(j *pipeline.Job, now time.Time) {
	p := &j.Progress
	if j.State.Terminal() {
		now = j.Times.Finished
	}
	share := p.Share
	if j.State == pipeline.JobCompleted || made(*j) {
		share = 100
	}
	p.MediaTime = time.Duration(share / 100 * float64(j.Plan.Duration))
	p.Speed, p.ETA = 0, 0
	began, working := work(*j)
	spent := now.Sub(began)
	if began.IsZero() || spent < paceAfter {
		return
	}
	p.Speed = p.MediaTime.Seconds() / spent.Seconds()
	// While work that was lost is done again, nothing says how long that takes.
	if working && share >= etaPercent && share >= p.Percent-lostPercent {
		p.ETA = time.Duration(float64(spent) * (100 - share) / share).Round(time.Second)
	}
}

// work tells when a worker first took a task of the run that isn't its probe,
// zero if that isn't known, and whether one has any now.
func work(j pipeline.Job) (began time.Time, working bool) {
	for _, t := range j.Tasks {
		if t.Run != j.Run || t.Kind == pipeline.KindProbe {
			continue
		}
		working = working || t.State == pipeline.TaskLeased
		if len(t.Attempts) > 0 && (began.IsZero() || t.Attempts[0].Started.Before(began)) {
			began = t.Attempts[0].Started
		}
	}

	return began, working
}

// filesOf are the files of a job's MP4 outputs, as far as each is. One that is
// put together of segments is as far as those are.
func filesOf(j pipeline.Job) []pipeline.RenditionProgress {
	type rendition struct{ output, name string }
	done, planned := map[rendition]time.Duration{}, map[rendition]time.Duration{}
	for _, t := range j.Tasks {
		if t.Run != j.Run {
			continue
		}
		names, length := j.Plan.MadeBy(t.Output, t.Part)
		share := length
		if t.State != pipeline.TaskDone {
			share = time.Duration(min(t.Fraction, unfinished/100) * float64(length))
		}
		for _, name := range names {
			r := rendition{t.Output, name}
			done[r] += share
			planned[r] += length
		}
	}
	var files []pipeline.RenditionProgress
	for _, o := range j.Plan.Outputs {
		for _, name := range o.Files() {
			file := rendition{o.Name, name}
			if planned[file] == 0 {
				continue // in a list there are no tasks to go by
			}
			of, most := file, 100.0
			at := slices.IndexFunc(o.Assembled, func(a media.Assembly) bool { return a.Rendition == name })
			if at >= 0 && done[file] < planned[file] {
				of, most = rendition{o.Assembled[at].From, name}, unfinished
			}
			files = append(files, pipeline.RenditionProgress{
				Output: o.Name, Name: name,
				Percent: min(most, 100*float64(done[of])/float64(max(1, planned[of]))),
			})
		}
	}

	return files
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
