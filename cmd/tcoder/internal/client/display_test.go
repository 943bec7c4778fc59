package client

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// clocked is a display whose clock the test moves.
type clocked struct {
	*display

	out bytes.Buffer
	at  time.Time
}

func newClocked(terminal bool) *clocked {
	c := &clocked{at: time.Unix(1_000_000, 0)}
	c.display = newDisplay(&c.out)
	c.terminal = terminal
	c.now = func() time.Time { return c.at }

	return c
}

func running(percent float64) tcoder.Update {
	return tcoder.Update{Job: &tcoderv1.Job{
		State:          tcoderv1.JobState_JOB_STATE_RUNNING,
		TimeToPlayable: durationpb.New(2300 * time.Millisecond),
		Progress: &tcoderv1.Progress{
			Percent: percent, Speed: 1.5, Fps: 36, Eta: durationpb.New(time.Duration(100-percent) * time.Second),
		},
	}}
}

// Without a terminal there is a line per change: per event, and per step of
// progress at most once a second, with speed and the time that is left.
func TestLinesWithoutTerminal(t *testing.T) {
	t.Parallel()
	c := newClocked(false)
	c.jobUpdate(tcoder.Update{Job: &tcoderv1.Job{
		State:   tcoderv1.JobState_JOB_STATE_PENDING,
		Waiting: &tcoderv1.Waiting{Reason: tcoderv1.WaitReason_WAIT_REASON_QUEUE, Position: 3},
	}})
	c.jobUpdate(tcoder.Update{
		Job:   &tcoderv1.Job{State: tcoderv1.JobState_JOB_STATE_RUNNING},
		Event: &tcoderv1.JobEvent{Type: tcoderv1.JobEventType_JOB_EVENT_TYPE_STARTED},
	})
	for percent := 2.0; percent < 30; percent += 2 {
		c.at = c.at.Add(500 * time.Millisecond)
		c.jobUpdate(running(percent))
	}
	playable := running(28)
	playable.Event = &tcoderv1.JobEvent{Type: tcoderv1.JobEventType_JOB_EVENT_TYPE_PLAYABLE}
	c.jobUpdate(playable)
	c.jobUpdate(tcoder.Update{
		Job: &tcoderv1.Job{State: tcoderv1.JobState_JOB_STATE_RUNNING, Progress: &tcoderv1.Progress{Percent: 30}},
		Event: &tcoderv1.JobEvent{
			Type:    tcoderv1.JobEventType_JOB_EVENT_TYPE_TASK_DELAYED,
			Failure: &tcoderv1.Failure{Reason: tcoderv1.ErrorReason_ERROR_REASON_WORKER_LOST, Message: "gone"},
		},
	})
	require.Equal(t, []string{
		"waiting: 3 tasks before it",
		"started",
		"transcoding 0%, 1.50x, 36 fps, eta 1:36",
		"transcoding 10%, 1.50x, 36 fps, eta 1:30",
		"transcoding 20%, 1.50x, 36 fps, eta 1:20",
		"playable after 2.3s",
		"another try follows: WORKER_LOST: gone",
		"transcoding 30%",
	}, strings.Split(strings.TrimSpace(c.out.String()), "\n"))
}

// On a terminal there is one line, drawn over, not too often, never wider than
// the terminal; events stay above it.
func TestLineOnTerminal(t *testing.T) {
	t.Parallel()
	c := newClocked(true)
	c.width = func() int { return 60 }
	c.jobUpdate(running(50))
	c.jobUpdate(running(51)) // too soon
	c.linef("planned")
	drawn := c.out.String()
	require.Equal(t, 1, strings.Count(drawn, "transcoding"))
	require.Contains(t, drawn, "████████████░░░░░░░░░░░░  50%  1.50x  36 fps")
	require.True(t, strings.HasSuffix(drawn, "\r\x1b[Kplanned\n"))
	for line := range strings.SplitSeq(drawn, "\r") {
		require.Less(t, len([]rune(strings.TrimSuffix(line, "\x1b[K"))), 60)
	}
	c.out.Reset()
	c.jobUpdate(tcoder.Update{Job: &tcoderv1.Job{State: tcoderv1.JobState_JOB_STATE_COMPLETED}})
	require.Empty(t, c.out.String())
}

// A transfer tells its speed and the time that is left.
func TestTransferSpeed(t *testing.T) {
	t.Parallel()
	c := newClocked(false)
	tell := &transfer{display: c.display, label: "uploading"}
	for done := int64(0); done <= 10<<20; done += 1 << 20 {
		tell.update(done, 10<<20)
		c.at = c.at.Add(time.Second)
	}
	require.Contains(t, c.out.String(), "uploading 50%, 5.0 MiB of 10.0 MiB, 1.0 MiB/s, eta 0:05\n")
	require.Contains(t, c.out.String(), "uploading 100%, 10.0 MiB of 10.0 MiB, 1.0 MiB/s, eta 0:00\n")
}

// A job is shown with all that happened to it.
func TestPlanText(t *testing.T) {
	t.Parallel()
	text := planText(&tcoderv1.Plan{
		Outputs: []*tcoderv1.OutputPlan{
			{Name: "hls", Video: &tcoderv1.VideoPlan{Renditions: []*tcoderv1.RenditionPlan{{Name: "720p"}, {Name: "360p", Copy: true}}}},
			{Name: "sound", Audio: &tcoderv1.AudioPlan{Name: "audio"}},
		},
		Duration: durationpb.New(time.Second),
		Notes:    []string{"1080p: left out"},
	})
	require.Equal(t, "hls 720p 360p (copy); sound audio\n  note: 1080p: left out", text)
}

// Of a rendition that grows it is told what can be played, of a file how much
// is made: all of it only once it is there.
func TestProgressText(t *testing.T) {
	t.Parallel()
	require.Equal(t, "          hls/720p: 12s, 30%", progressText(&tcoderv1.RenditionProgress{
		Output: "hls", Name: "720p", Playable: durationpb.New(12 * time.Second), Percent: 30,
	}))
	require.Equal(t, "file      mp4/720p: 99%", progressText(&tcoderv1.RenditionProgress{Output: "mp4", Name: "720p", Percent: 99.9}))
}

// Sizes and times are written for people.
func TestFormats(t *testing.T) {
	t.Parallel()
	require.Equal(t, "0 B", formatBytes(0))
	require.Equal(t, "1.5 KiB", formatBytes(1536))
	require.Equal(t, "2048.0 TiB", formatBytes(2<<50))
	require.Equal(t, "0:07", formatClock(7*time.Second))
	require.Equal(t, "1:02:03", formatClock(time.Hour+2*time.Minute+3*time.Second))
	require.Equal(t, "20ms", formatTook(20*time.Millisecond))
	require.Equal(t, "1.2s", formatTook(1234*time.Millisecond))
	require.Equal(t, "2m3s", formatTook(2*time.Minute+3400*time.Millisecond))
}
