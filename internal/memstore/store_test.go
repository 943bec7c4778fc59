package memstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tcoder-dev/tcoder/internal/memstore"
	"github.com/tcoder-dev/tcoder/internal/pipeline/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestConformance guarantees that the model keeps every promise of the port.
func TestConformance(t *testing.T) {
	t.Parallel()

	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()

		store := memstore.New(memstore.Config{})

		return storetest.Harness{Store: store, Advance: func(t *testing.T, d time.Duration) {
			t.Helper()
			require.NoError(t, store.AdvanceClock(t.Context(), d))
		}}
	})
}
