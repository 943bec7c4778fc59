package client

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzNames guarantees that a state or a reason is one of the API, or refused.
func FuzzNames(f *testing.F) {
	for _, text := range []string{"failed", "RUNNING", "unspecified", "QUARANTINED", "", "job_state_failed"} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		if states, err := parseStates([]string{text}); err == nil {
			require.NotZero(t, states[0])
			require.Contains(t, stateNames(), strings.ToLower(text))
		}

		if reasons, err := parseReasons([]string{text}); err == nil {
			require.NotZero(t, reasons[0])
		}
	})
}
