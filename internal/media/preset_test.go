package media_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
)

// Every preset guarantees to resolve to itself, so that what ListPresets
// shows is what a job gets.
func TestPresetsAreComplete(t *testing.T) {
	t.Parallel()
	for _, p := range media.Presets() {
		got, err := media.Resolve(media.Spec{Preset: p.Name})
		require.NoError(t, err)
		require.Equal(t, p.Spec, got)
		again, err := media.Resolve(got)
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
}

// A spec without a preset guarantees the default one.
func TestResolveEmptySpec(t *testing.T) {
	t.Parallel()
	got, err := media.Resolve(media.Spec{})
	require.NoError(t, err)
	require.Equal(t, media.DefaultPreset, got.Preset)
	require.Equal(t, media.KindMP4, got.Outputs[0].Kind)
}

// A set field guarantees to win over the preset's, and only that field.
func TestResolveOverridesFieldByField(t *testing.T) {
	t.Parallel()
	got, err := media.Resolve(media.Spec{
		Preset:    "hls-adaptive",
		Qualities: []string{"480p", "240p"},
		Video:     media.VideoSettings{CRF: 28},
		HLS:       media.HLSSettings{SegmentSeconds: 6},
	})
	require.NoError(t, err)
	require.Equal(t, []string{"480p", "240p"}, got.Outputs[0].Qualities)
	require.Equal(t, 28, got.Video.CRF)
	require.Equal(t, "veryfast", got.Video.EncoderPreset)
	require.InDelta(t, 6, got.HLS.SegmentSeconds, 0)
}

// A spec that can't be served guarantees a reason and the field at fault.
func TestResolveRefuses(t *testing.T) {
	t.Parallel()
	hls := media.OutputSpec{Name: "hls", Kind: media.KindHLS}
	for name, c := range map[string]struct {
		spec          media.Spec
		reason, field string
	}{
		"unknown preset":        {media.Spec{Preset: "hsl"}, "UNKNOWN_PRESET", "preset"},
		"unknown quality":       {media.Spec{Qualities: []string{"720p", "721p"}}, "UNKNOWN_QUALITY", "qualities[1]"},
		"two qualities for hls": {media.Spec{Preset: "hls", Qualities: []string{"720p", "480p"}}, "SPEC_INVALID", "qualities"},
		"quality twice":         {media.Spec{Qualities: []string{"720p", "720p"}}, "SPEC_INVALID", "qualities[1]"},
		"bad output name":       {media.Spec{Outputs: []media.OutputSpec{{Name: "../x", Kind: media.KindMP4}}}, "SPEC_INVALID", "outputs[0].name"},
		"same name twice":       {media.Spec{Outputs: []media.OutputSpec{hls, hls}}, "SPEC_INVALID", "outputs[1].name"},
		"no kind":               {media.Spec{Outputs: []media.OutputSpec{{Name: "a"}}}, "SPEC_INVALID", "outputs[0].kind"},
		"segment below GOP":     {media.Spec{Video: media.VideoSettings{GOPSeconds: 6}}, "SPEC_INVALID", "hls.segment_seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := media.Resolve(c.spec)
			var refused *media.SpecError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, c.reason, refused.Reason)
			require.Equal(t, c.field, refused.Field)
			require.NotEmpty(t, refused.Message)
		})
	}
}
