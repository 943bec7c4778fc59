package e2e_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// A machine that Fly stops in the middle of a task, as it does for reasons of
// its own, guarantees that its worker hands the task back and ends well before
// it is killed, and that nothing is charged.
func TestFleetDrain(t *testing.T) {
	t.Parallel()
	// A quarter of it is for tasks to end by themselves, far less than this encode takes.
	const killTimeout = 20 * time.Second
	f := newFleet(t, "--fly-kill-timeout", killTimeout.String())
	f.clip = mediatest.Zoom1080(t, encodeSeconds*time.Second)
	f.spec = &tcoderv1.JobSpec{Preset: "hls-adaptive", Qualities: []string{"1080p", "720p", "360p"}}
	f.submit(t, 1)
	var machine string
	f.eventually(t, "no machine works", func() bool {
		machine = f.encoding(t)

		return machine != ""
	})
	stopped := time.Now()
	answer := f.call(t, http.MethodPost, machine+"/stop", "{}") // Fly's own defaults are those of the machine
	require.Equal(t, http.StatusOK, answer.Code, answer.Body)
	f.eventually(t, "it doesn't stop", func() bool {
		state := f.cloud.Machines()[machine]

		return state == "stopped" || state == ""
	})
	require.Less(t, time.Since(stopped), killTimeout)
	f.finish(t)
	job, err := f.client(t).GetJob(t.Context(), f.jobs[0])
	require.NoError(t, err)
	require.Equal(t, tcoderv1.AttemptOutcome_ATTEMPT_OUTCOME_RELEASED, encodeTask(t, job).GetAttempts()[0].GetOutcome())
	f.rest(t)
}

// encoding is a machine that is in the middle of an encode; empty if none is.
func (f *fleet) encoding(t *testing.T) string {
	t.Helper()
	job, err := f.client(t).GetJob(t.Context(), f.jobs[0])
	require.NoError(t, err)
	if len(job.GetTasks()) < 2 || job.GetProgress().GetPercent() < 5 {
		return ""
	}
	view := f.pool(t)
	for _, w := range view.Workers {
		for _, m := range view.Machines {
			if w.MachineID == m.ID && len(w.Held) > 0 && m.State == pipeline.MachineRunning {
				return m.ProviderID
			}
		}
	}

	return ""
}

// call makes a call of the Machines API as somebody else.
func (f *fleet) call(t *testing.T, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobWithin)
	defer cancel()
	req := httptest.NewRequestWithContext(ctx, method, "/v1/apps/acme/machines/"+path, strings.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+flyToken)
	answer := httptest.NewRecorder()
	f.cloud.ServeHTTP(answer, req)

	return answer
}
