package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/internal/pipeline/modeltest"
	"github.com/tcoder-dev/tcoder/internal/redisstore"
	"github.com/tcoder-dev/tcoder/internal/redistest"
)

// TestModel guarantees that the scripts do what the model does, whatever
// happens in whatever order, and that the invariants hold after every step.
func TestModel(t *testing.T) {
	t.Parallel()

	url, tag := redistest.New(t)
	cases := 0

	modeltest.Run(t, func(t *rapid.T) modeltest.Harness {
		cases++

		replica := func() *redisstore.Store {
			s, err := redisstore.New(redisstore.Config{URL: url, Tag: fmt.Sprintf("%s-%d", tag[1:len(tag)-1], cases)})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })

			return s
		}
		first := replica()

		return modeltest.Harness{
			Replicas: []pipeline.Store{first, replica()},
			StopClock: func(t *rapid.T, at time.Time) {
				t.Helper()
				require.NoError(t, first.StopClock(t.Context(), at))
			},
		}
	})
}
