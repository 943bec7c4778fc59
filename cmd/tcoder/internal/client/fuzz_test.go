package client

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
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

// FuzzSettings guarantees that what is set of a pool is as it is shown: text
// that isn't is refused.
func FuzzSettings(f *testing.F) {
	for _, text := range []string{
		"max=3 warm=1 idle=90s stopped=2", "regions=fra,ams size=performance-4x light-size=", "max=-1", "idle=0", "idle=5", "max", "top=1", "max=1 max=2",
	} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		change, err := parseSettings(strings.Fields(text))
		if err != nil {
			return
		}

		shown := settingsText(&tcoderv1.PoolSettings{
			MachineLimit: change.GetMachineLimit(), MinWarm: change.GetMinWarm(), KeepStopped: change.GetKeepStopped(),
			IdleThreshold: change.GetIdleThreshold(), Regions: change.GetRegions().GetNames(),
			EncodeSize: change.GetEncodeSize(), LightSize: change.GetLightSize(),
		})
		again, err := parseSettings(strings.Fields(shown))
		require.NoError(t, err)
		require.Equal(t, change.GetMachineLimit(), again.GetMachineLimit())
		require.Equal(t, change.GetMinWarm(), again.GetMinWarm())
		require.Equal(t, change.GetKeepStopped(), again.GetKeepStopped())
		require.Equal(t, change.GetIdleThreshold().AsDuration(), again.GetIdleThreshold().AsDuration())
		require.Equal(t, change.GetRegions().GetNames(), again.GetRegions().GetNames())
		require.Equal(t, change.GetEncodeSize(), again.GetEncodeSize())
		require.Equal(t, change.GetLightSize(), again.GetLightSize())
	})
}
