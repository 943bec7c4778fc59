package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestReasonOf guarantees that the reason is found through wrapping, and that
// an error of unknown origin is ours.
func TestReasonOf(t *testing.T) {
	t.Parallel()

	err := pipeline.NewError(pipeline.ReasonJobNotFound, "There is no such job.")
	require.Equal(t, pipeline.ReasonJobNotFound, pipeline.ReasonOf(fmt.Errorf("get: %w", err)))
	require.Equal(t, pipeline.ReasonInternal, pipeline.ReasonOf(errors.New("boom")))
	require.Equal(t, pipeline.ReasonInternal, pipeline.ReasonOf(nil))
}

// TestErrorKeepsItsCause guarantees that the log has the cause and that it can be asked for.
func TestErrorKeepsItsCause(t *testing.T) {
	t.Parallel()

	err := &pipeline.Error{
		Reason: pipeline.ReasonStateUnavailable, Message: "The state store doesn't answer.", Cause: context.Canceled,
	}
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "STATE_UNAVAILABLE: The state store doesn't answer.: context canceled", err.Error())
	require.Equal(t, "JOB_NOT_FOUND: gone", pipeline.NewError(pipeline.ReasonJobNotFound, "gone").Error())
}

// TestDefaultRetryPolicy guarantees the numbers of the design.
func TestDefaultRetryPolicy(t *testing.T) {
	t.Parallel()

	p := pipeline.DefaultRetryPolicy()
	require.Equal(t, 4, p.MaxFailures)
	require.Equal(t, "1s 1m0s", fmt.Sprint(p.Backoff, " ", p.MaxBackoff))
	require.InDelta(t, 0.2, p.Jitter, 0)
}
