package redisstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// TestSpecPacked guarantees that what never changes of a job is read as it was
// written, and that a string that was cut short is an error wherever it was cut.
func TestSpecPacked(t *testing.T) {
	t.Parallel()

	want := pipeline.Job{
		Project: "p", Spec: media.Spec{Preset: "hls-adaptive"}, Labels: map[string]string{"a": "", "b\n": "\x00ü"},
		Source: pipeline.Source{ObjectKey: "in/p/source", SizeBytes: 1 << 40, ETag: "e", Filename: "ü.mp4", UploadID: "u"},
	}
	packed, err := encodeSpec(want)
	require.NoError(t, err)

	var got pipeline.Job

	require.NoError(t, decodeSpec(&got, packed))
	require.Equal(t, want, got)

	// Without the JSON behind it is one that asks for nothing.
	front := len(packed) - len(`{"preset":"hls-adaptive"}`)

	for n := 1; n < len(packed); n++ {
		if n != front {
			require.Error(t, decodeSpec(new(pipeline.Job), packed[:n]), n)
		}
	}
}
