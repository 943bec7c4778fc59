package worker

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// TestCallBounds guarantees that what one call says is bounded in number and in
// bytes, that a message which is too large for that goes alone, and that nothing
// is lost or told in another order.
func TestCallBounds(t *testing.T) {
	t.Parallel()

	o := newOutbox()
	put := func(sizes ...int) {
		for _, size := range sizes {
			o.put(&tcoderv1.AttachRequest{Message: &tcoderv1.AttachRequest_Report{Report: &tcoderv1.TaskReport{
				End: &tcoderv1.TaskReport_Probe{Probe: &tcoderv1.ProbeResult{Format: strings.Repeat("x", size)}},
			}}})
		}
	}
	call := func(before []*tcoderv1.AttachRequest) (messages []*tcoderv1.AttachRequest, sizes []int, closed bool) {
		messages, closed = o.takeAll(before, 3, 1000)
		for _, message := range messages {
			sizes = append(sizes, len(message.GetReport().GetProbe().GetFormat()))
		}

		return messages, sizes, closed
	}

	put(1, 2, 3, 400, 500, 600, 5000, 7)
	o.close()

	_, sizes, closed := call(nil)
	require.Equal(t, []int{1, 2, 3}, sizes)
	require.False(t, closed)

	said, sizes, _ := call(nil)
	require.Equal(t, []int{400, 500}, sizes)

	_, sizes, _ = call(said) // once more, since it got no answer
	require.Equal(t, []int{400, 500}, sizes)

	_, sizes, _ = call(nil)
	require.Equal(t, []int{600}, sizes)

	_, sizes, _ = call(nil)
	require.Equal(t, []int{5000}, sizes)

	_, sizes, closed = call(nil)
	require.Equal(t, []int{7}, sizes)
	require.True(t, closed)
}
