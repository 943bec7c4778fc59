package job

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// FuzzPageToken guarantees that a token is read as what was written, for the
// list it was made for alone, and that anything else is refused by name.
func FuzzPageToken(f *testing.F) {
	f.Add(pageToken("01ARZ3NDEKTSV4RRFFQ69G5FAV", "default"), "default", "x")
	f.Add("", "", "")
	f.Add("AQ", "a", "b")
	f.Add("=====", "a", "b")

	f.Fuzz(func(t *testing.T, token, filter, position string) {
		got, err := pagePosition(token, filter)
		if err != nil {
			require.Equal(t, pipeline.ReasonPageTokenInvalid, pipeline.ReasonOf(err))
		} else if token != "" {
			require.Equal(t, token, pageToken(got, filter))
		}

		if position == "" {
			return
		}

		made := pageToken(position, filter)
		got, err = pagePosition(made, filter)
		require.NoError(t, err)
		require.Equal(t, position, got)

		_, err = pagePosition(made, filter, "other")
		require.Error(t, err)
	})
}
