package machine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/machine"
)

// TestClasses: every class is told through wrapping, has a sentence for the
// operator, and the coarse kind that its contract names.
func TestClasses(t *testing.T) {
	t.Parallel()
	kinds := []error{machine.ErrNotFound, machine.ErrCapacity, machine.ErrUnavailable}
	for class, kind := range map[machine.Class]error{
		machine.NotFound: machine.ErrNotFound, machine.RegionFull: machine.ErrCapacity, machine.HostFull: machine.ErrCapacity,
		machine.Quota: machine.ErrCapacity, machine.Unclear: machine.ErrUnavailable, machine.RateLimited: machine.ErrUnavailable,
		machine.NotReady: machine.ErrUnavailable, machine.Unauthorized: nil, machine.NameTaken: nil, machine.Refused: nil,
	} {
		err := fmt.Errorf("create: %w", &machine.Error{Class: class, RetryAfter: time.Second, Err: context.DeadlineExceeded})
		require.Equal(t, class, machine.ClassOf(err))
		require.Regexp(t, `^[A-Z].*\.$`, machine.MessageOf(err))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		for _, k := range kinds {
			require.Equal(t, k == kind, errors.Is(err, k), "%s, %v", class, k) //nolint:errorlint // which of them it is
		}
	}
	require.Empty(t, machine.ClassOf(nil))
	require.Empty(t, machine.MessageOf(nil))
	require.Equal(t, machine.NotFound, machine.ClassOf(fmt.Errorf("x: %w", machine.ErrNotFound)))
	require.Equal(t, machine.Refused, machine.ClassOf(errors.New("what")))
	require.Equal(t, "It is full. (status 422)", (&machine.Error{Message: "It is full.", Err: errors.New("status 422")}).Error())
}
