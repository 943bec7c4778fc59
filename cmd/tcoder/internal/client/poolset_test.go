package client

import (
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Settings are read as they are shown, what is left out stays unset, and what
// can't be meant is refused.
func TestParseSettings(t *testing.T) {
	t.Parallel()
	change, err := parseSettings([]string{"max=20", "idle=5m", "regions=fra,iad", "size="})
	require.NoError(t, err)
	require.EqualValues(t, 20, change.GetMachineLimit())
	require.Nil(t, change.MinWarm)
	require.Equal(t, []string{"fra", "iad"}, change.GetRegions().GetNames())
	require.NotNil(t, change.EncodeSize)
	require.Equal(t, "max=20 warm=0 idle=5m0s stopped=0 regions=fra,iad", settingsText(&tcoderv1.PoolSettings{
		MachineLimit: change.GetMachineLimit(), IdleThreshold: change.GetIdleThreshold(), Regions: change.GetRegions().GetNames(),
	}))
	for _, wrong := range []string{"max", "max=-1", "idle=soon", "colour=red"} {
		_, err := parseSettings([]string{wrong})
		require.Error(t, err, wrong)
	}
}
