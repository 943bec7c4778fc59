package client

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// printJob shows all that a person wants to know of a job.
func (b *base) printJob(job *tcoderv1.Job) error {
	b.Printf("job       %s, run %d\n", job.GetId(), job.GetRun())
	b.Printf("state     %s", name(job.GetState(), jobStatePrefix))
	if percent := job.GetProgress().GetPercent(); percent > 0 && percent < 100 {
		b.Printf(", %.0f%%", percent)
	}
	if job.GetWaiting() != nil {
		label, text := waitText(job, time.Now())
		b.Printf(", %s %s", label, text)
	}
	b.Printf("\n")
	if job.GetFailure() != nil {
		b.Printf("failure   %s\n", failureText(job.GetFailure()))
	}
	b.Printf("source    %s, %s\n", job.GetSource().GetFilename(), formatBytes(float64(job.GetSource().GetSizeBytes())))
	if probe := job.GetProbe(); probe != nil {
		b.Printf("          %s\n", probeText(probe))
	}
	b.Printf("preset    %s\n", presetOf(job))
	if plan := job.GetPlan(); plan != nil {
		b.Printf("plan      %s\n", strings.ReplaceAll(planText(plan), "\n", "\n        "))
	}
	times := job.GetTimes()
	b.Printf("created   %s\n", formatTime(times.GetCreatedAt()))
	if times.GetFinishedAt() != nil {
		b.Printf("finished  %s, playable after %s, complete after %s\n", formatTime(times.GetFinishedAt()),
			formatDuration(job.GetTimeToPlayable()), formatDuration(job.GetTimeToComplete()))
	}
	if job.GetState() == tcoderv1.JobState_JOB_STATE_RUNNING {
		for _, stage := range job.GetProgress().GetStages() {
			b.Printf("stage     %s %.0f%%\n", name(stage.GetStage(), "STAGE_"), stage.GetPercent())
		}
	}
	for _, output := range job.GetPlayable() {
		b.Printf("playable  %s: %s\n", output.GetOutput(), output.GetObjectKey())
	}
	for _, r := range job.GetProgress().GetRenditions() {
		b.Printf("%s\n", progressText(r))
	}
	for _, output := range job.GetOutputs() {
		b.Printf("output    %s: %s, %s, %s\n", output.GetName(), output.GetEntry(),
			count(len(output.GetObjects()), "file"), formatBytes(float64(output.GetSizeBytes())))
		for _, r := range output.GetRenditions() {
			b.Printf("          %s\n", renditionText(r))
		}
	}
	if len(job.GetTasks()) == 0 {
		return nil
	}
	b.Printf("\n")

	return b.printTasks(job.GetTasks())
}

// progressText is how far a rendition is: below what can be played, or a file
// of its own, which can't be before it is there.
func progressText(r *tcoderv1.RenditionProgress) string {
	if r.GetPlayable() == nil {
		return fmt.Sprintf("file      %s/%s: %.0f%%", r.GetOutput(), r.GetName(), math.Floor(r.GetPercent()))
	}

	return fmt.Sprintf("          %s/%s: %s, %.0f%%", r.GetOutput(), r.GetName(), formatDuration(r.GetPlayable()), r.GetPercent())
}

func (b *base) printTasks(tasks []*tcoderv1.Task) error {
	var rows [][]any
	for _, task := range tasks {
		row := []any{
			task.GetId(), task.GetRun(), name(task.GetKind(), "TASK_KIND_"), orDash(task.GetOutput()),
			name(task.GetState(), "TASK_STATE_"),
		}
		if len(task.GetAttempts()) == 0 {
			rows = append(rows, append(row, "-", "-", "-", "-"))
		}
		for _, attempt := range task.GetAttempts() {
			rows = append(rows, append(slices.Clip(row),
				attempt.GetNumber(), orDash(attempt.GetWorkerId()), attemptTook(attempt), attemptEnd(attempt)))
		}
	}

	return b.PrintTable("TASK\tRUN\tKIND\tOUTPUT\tSTATE\tATTEMPT\tWORKER\tTOOK\tEND", rows)
}

func attemptTook(a *tcoderv1.Attempt) string {
	end := time.Now()
	if a.GetEndedAt() != nil {
		end = a.GetEndedAt().AsTime()
	}

	return formatTook(end.Sub(a.GetStartedAt().AsTime()))
}

func attemptEnd(a *tcoderv1.Attempt) string {
	if a.GetEndedAt() == nil {
		return "-"
	}
	text := name(a.GetOutcome(), "ATTEMPT_OUTCOME_")
	if a.GetFailure() != nil {
		text += " " + failureText(a.GetFailure())
	}

	return text
}

func probeText(p *tcoderv1.ProbeResult) string {
	parts := []string{p.GetFormat(), formatClock(p.GetDuration().AsDuration())}
	for _, s := range p.GetStreams() {
		switch s.GetKind() {
		case tcoderv1.StreamKind_STREAM_KIND_VIDEO:
			parts = append(parts, fmt.Sprintf("%s %dx%d %s fps", s.GetCodec(), s.GetWidth(), s.GetHeight(),
				rateText(s.GetFrameRate())))
		case tcoderv1.StreamKind_STREAM_KIND_AUDIO:
			parts = append(parts, fmt.Sprintf("%s %d ch %d Hz", s.GetCodec(), s.GetChannels(), s.GetSampleRateHz()))
		default:
			parts = append(parts, s.GetCodec())
		}
	}

	return strings.Join(parts, ", ")
}

func renditionText(r *tcoderv1.RenditionResult) string {
	text := fmt.Sprintf("%-6s %s", r.GetName(), r.GetCodecs())
	if r.GetHeight() > 0 {
		text += fmt.Sprintf(" %dx%d %s fps", r.GetWidth(), r.GetHeight(), rateText(r.GetFrameRate()))
	}
	text += fmt.Sprintf(" %d kbit/s", r.GetAverageBitrateBps()/1000)
	if r.GetCopied() {
		text += " (copied)"
	}
	if r.GetSourceDamaged() {
		text += " (the source is damaged)"
	}

	return text
}

func rateText(r *tcoderv1.Rational) string {
	if r.GetDen() == 0 {
		return "?"
	}

	return strings.TrimSuffix(fmt.Sprintf("%.2f", float64(r.GetNum())/float64(r.GetDen())), ".00")
}

// presetSettings are the settings of a complete spec, a line each.
func presetSettings(spec *tcoderv1.JobSpec) []string {
	var lines []string
	for _, output := range spec.GetOutputs() {
		qualities := "the source's size"
		if len(output.GetQualities()) > 0 {
			qualities = strings.Join(output.GetQualities(), " ")
		}
		line := fmt.Sprintf("output %s: %s, %s, copy %s", output.GetName(), name(output.GetKind(), "OUTPUT_KIND_"),
			qualities, strings.ToLower(name(output.GetCopy(), "COPY_POLICY_")))
		if output.GetMaxRenditions() > 0 {
			line += fmt.Sprintf(", at most %d", output.GetMaxRenditions())
		}
		lines = append(lines, line)
	}
	video, audio := spec.GetVideo(), spec.GetAudio()
	lines = append(lines,
		fmt.Sprintf("video: %s, %s, crf %d, encoder preset %s, at most %g fps, keyframe every %g s",
			name(video.GetCodec(), "VIDEO_CODEC_"), strings.ToLower(name(video.GetRateControl(), "RATE_CONTROL_")),
			video.GetCrf(), video.GetEncoderPreset(), video.GetMaxFps(), video.GetGopSeconds()),
		fmt.Sprintf("audio: %s, %d kbit/s", name(audio.GetCodec(), "AUDIO_CODEC_"), audio.GetBitrateBps()/1000))
	if spec.GetHls() != nil {
		lines = append(lines, fmt.Sprintf("hls: segments of %g s", spec.GetHls().GetSegmentSeconds()))
	}

	return lines
}
