package media_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/media"
)

var update = flag.Bool("update", false, "write the golden files") //nolint:gochecknoglobals // the way of package flag

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, got, 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run go test -update and read the new file")
	require.Equal(t, string(want), string(got))
}

// encoded is a rendition of two whole segments and a short one.
func encoded(name string, width, height int, bytes int64) media.EncodedRendition {
	e := media.EncodedRendition{
		Result: media.RenditionResult{
			Name: name, Codecs: "avc1.64001f", Width: width, Height: height,
			FrameRate: media.Rational{Num: 24000, Den: 1001}, FrameCount: 204,
		},
		InitSegment: &media.EncodedObject{Name: name + "/init.mp4", SizeBytes: 800, ContentType: "video/mp4"},
	}
	if width == 0 {
		e.Result.Codecs, e.Result.FrameRate, e.Result.FrameCount = "mp4a.40.2", media.Rational{}, 0
	}
	for i, d := range []time.Duration{4004 * time.Millisecond, 4004 * time.Millisecond, 500500 * time.Microsecond} {
		e.Segments = append(e.Segments, media.EncodedObject{
			Name: fmt.Sprintf("%s/%05d.m4s", name, i), SizeBytes: bytes * int64(i+1), Duration: d, ContentType: "video/iso.segment",
		})
		e.Result.Duration += d
		e.Result.SizeBytes += bytes * int64(i+1)
	}

	return e
}

// An HLS output guarantees playlists that RFC 8216 allows: peak bandwidth over
// runs of segments near the target duration, codecs of picture and sound, one
// audio group; and every object that they name is listed.
func TestAssembleHLS(t *testing.T) {
	t.Parallel()
	o := plan(t, camera(), media.Spec{Preset: "hls-adaptive", Qualities: []string{"720p", "360p"}}).Outputs[0]
	result := media.EncodeResult{Renditions: []media.EncodedRendition{
		encoded("720p", 1280, 720, 1_000_000), encoded("360p", 640, 360, 300_000), encoded("audio", 0, 0, 64_000),
	}}
	require.NoError(t, media.VerifyResult(o, 0, 8500*time.Millisecond, result))
	out, manifests := media.Assemble(o, []media.Part{{Dir: media.AttemptDir(1, 2), Result: result}}, media.OutputPrefix("default", "01ABC", "hls"), 1)
	require.Equal(t, "master.m3u8", out.Entry)
	require.Len(t, manifests, 4)
	require.Len(t, out.Objects, 3*(1+3)+4)
	for _, m := range manifests {
		golden(t, filepath.Base(m.Key), m.Body)
	}
	for _, object := range out.Objects {
		require.Equal(t, "out/public/default/01ABC/hls/"+object.Name, object.Key)
		require.Positive(t, object.SizeBytes)
	}
}

// The peak of a stream is never told as less than its average, whatever the
// two are rounded to: of one segment both are the same.
func TestAssembleOneSegment(t *testing.T) {
	t.Parallel()
	o := plan(t, camera(), media.Spec{Preset: "hls-adaptive", Qualities: []string{"360p"}}).Outputs[0]
	for bytes := int64(1_000_000); bytes < 1_000_050; bytes++ {
		result := media.EncodeResult{Renditions: []media.EncodedRendition{
			encoded("360p", 640, 360, bytes), encoded("audio", 0, 0, bytes),
		}}
		for i := range result.Renditions {
			r := &result.Renditions[i]
			r.Segments = r.Segments[:1]
			r.Segments[0].Duration = 1333333333 * time.Nanosecond
			r.Result.Duration, r.Result.SizeBytes = r.Segments[0].Duration, bytes
		}
		_, manifests := media.Assemble(o, []media.Part{{Dir: "t1a1", Result: result}}, "p/", 1)
		var peak, average int64
		for _, m := range manifests {
			if _, stream, ok := strings.Cut(string(m.Body), "#EXT-X-STREAM-INF:"); ok {
				_, err := fmt.Sscanf(stream, "BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d", &peak, &average)
				require.NoError(t, err)
			}
		}
		require.Positive(t, average)
		require.GreaterOrEqual(t, peak, average, "%d bytes", bytes)
	}
}

// A source without a picture guarantees a master playlist of sound alone.
func TestAssembleAudioOnlyHLS(t *testing.T) {
	t.Parallel()
	p := camera()
	p.Streams = p.Streams[1:]
	o := plan(t, p, media.Spec{Preset: "hls-adaptive"}).Outputs[0]
	result := media.EncodeResult{Renditions: []media.EncodedRendition{encoded("audio", 0, 0, 64_000)}}
	_, manifests := media.Assemble(o, []media.Part{{Dir: "t1a1", Result: result}}, "p/", 1)
	golden(t, "audio-only.m3u8", manifests[len(manifests)-1].Body)
}

// Parts guarantee to follow each other in one playlist behind one init segment.
func TestAssembleParts(t *testing.T) {
	t.Parallel()
	o := plan(t, camera(), media.Spec{Preset: "hls"}).Outputs[0]
	o.Audio = nil
	result := media.EncodeResult{Renditions: []media.EncodedRendition{encoded("1080p", 1920, 1080, 1_000_000)}}
	out, manifests := media.Assemble(o, []media.Part{{Dir: "t1a1", Result: result}, {Dir: "t2a3", Result: result}}, "p/", 1)
	golden(t, "parts.m3u8", manifests[0].Body)
	require.EqualValues(t, 408, out.Renditions[0].FrameCount)
	require.Equal(t, 2*8508500*time.Microsecond, out.Duration)
}

// Files guarantee their plain names, and the largest is the one to open.
func TestAssembleMP4(t *testing.T) {
	t.Parallel()
	o := plan(t, camera(), media.Spec{Preset: "web-optimized"}).Outputs[0]
	var result media.EncodeResult
	for _, r := range o.Video.Renditions {
		e := encoded(r.Name, r.Width, r.Height, 1)
		e.InitSegment, e.Segments = nil, nil
		e.File = &media.EncodedObject{Name: r.Name + ".mp4", SizeBytes: int64(r.Height), ContentType: "video/mp4"}
		result.Renditions = append(result.Renditions, e)
	}
	require.NoError(t, media.VerifyResult(o, 0, 8500*time.Millisecond, result))
	out, manifests := media.Assemble(o, []media.Part{{Dir: "t1a1", Result: result}}, "p/", 1)
	require.Empty(t, manifests)
	require.Equal(t, "1080p.mp4", out.Entry)
	require.Equal(t, media.OutputObject{Name: "720p.mp4", Key: "p/t1a1/720p.mp4", SizeBytes: 720, ContentType: "video/mp4"}, out.Objects[1])
	require.EqualValues(t, 1080+720+480, out.SizeBytes)
}

// A result that differs from the plan guarantees to be refused.
func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	o := plan(t, camera(), media.Spec{Preset: "hls-adaptive", Qualities: []string{"720p", "360p"}}).Outputs[0]
	for name, spoil := range map[string]func(*media.EncodeResult){
		"rendition missing":  func(r *media.EncodeResult) { r.Renditions = r.Renditions[1:] },
		"audio missing":      func(r *media.EncodeResult) { r.Renditions = r.Renditions[:2] },
		"stranger":           func(r *media.EncodeResult) { r.Renditions = append(r.Renditions, encoded("480p", 854, 480, 1)) },
		"wrong size":         func(r *media.EncodeResult) { r.Renditions[0].Result.Width = 1278 },
		"frame lost":         func(r *media.EncodeResult) { r.Renditions[1].Result.FrameCount-- },
		"no frames":          func(r *media.EncodeResult) { r.Renditions[0].Result.FrameCount = 0 },
		"segment lost":       func(r *media.EncodeResult) { r.Renditions[1].Segments = r.Renditions[1].Segments[:2] },
		"edges apart":        func(r *media.EncodeResult) { shift(r.Renditions[1].Segments) },
		"empty segment":      func(r *media.EncodeResult) { r.Renditions[0].Segments[1].SizeBytes = 0 },
		"no init":            func(r *media.EncodeResult) { r.Renditions[0].InitSegment = nil },
		"wrong cadence":      func(r *media.EncodeResult) { r.Renditions[0].Result.FrameRate = media.Rational{Num: 30, Den: 1} },
		"no codecs":          func(r *media.EncodeResult) { r.Renditions[2].Result.Codecs = "" },
		"ends early":         func(r *media.EncodeResult) { *r = media.EncodeResult{Renditions: short(r.Renditions)} },
		"sum is not the sum": func(r *media.EncodeResult) { r.Renditions[0].Result.Duration += time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result := media.EncodeResult{Renditions: []media.EncodedRendition{
				encoded("720p", 1280, 720, 1000), encoded("360p", 640, 360, 300), encoded("audio", 0, 0, 64),
			}}
			require.NoError(t, media.VerifyResult(o, 0, 8500*time.Millisecond, result))
			spoil(&result)
			require.Error(t, media.VerifyResult(o, 0, 8500*time.Millisecond, result))
		})
	}
}

func shift(segments []media.EncodedObject) {
	segments[0].Duration += 10 * time.Millisecond
	segments[1].Duration -= 10 * time.Millisecond
}

func short(renditions []media.EncodedRendition) []media.EncodedRendition {
	for i := range renditions {
		r := &renditions[i]
		r.Segments = r.Segments[:1]
		r.Result.Duration = r.Segments[0].Duration
	}

	return renditions
}
