package mediatest_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tcoder-dev/tcoder/internal/mediatest"
)

// TestClips guarantees that each clip is what its name promises, so that a test that feeds it to the product tests what
// it says.
func TestClips(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		id    mediatest.ID
		check func(t *testing.T, info mediatest.Info)
	}{
		{mediatest.Film, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			video, audio := only(t, info.Video), only(t, info.Audio)
			require.Equal(t, 7*time.Second, info.Duration)
			require.Equal(t, [2]int{1280, 720}, [2]int{video.Width, video.Height})
			require.Equal(t, "h264 High yuv420p 24/1", video.Codec+" "+video.Profile+" "+video.PixelFormat+" "+video.FrameRate.String())
			require.Equal(t, 168, video.Frames)
			require.Equal(t, "aac LC", audio.Codec+" "+audio.Profile)
			require.Equal(t, [2]int{48000, 2}, [2]int{audio.SampleRateHz, audio.Channels})
		}},
		{mediatest.Rotated, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, 90, max(only(t, info.Video).RotationDegrees, -info.Video[0].RotationDegrees))
			require.Equal(t, 1280, info.Video[0].Width)
		}},
		{mediatest.Portrait, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, [2]int{720, 1280}, [2]int{only(t, info.Video).Width, info.Video[0].Height})
			require.Equal(t, "1:1", info.Video[0].SampleAspectRatio)
		}},
		{mediatest.VariableRate, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, 90, only(t, info.Video).Frames)
			require.Less(t, info.Video[0].AverageRate.Float(), 16.0)
			require.InDelta(t, 24, info.Video[0].FrameRate.Float(), 0.01)
		}},
		{mediatest.HighRate, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, mediatest.Rational{Num: 60000, Den: 1001}, only(t, info.Video).FrameRate)
		}},
		{mediatest.NoAudio, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			only(t, info.Video)
			require.Empty(t, info.Audio)
		}},
		{mediatest.AudioOnly, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Empty(t, info.Video)
			require.Equal(t, "aac", only(t, info.Audio).Codec)
		}},
		{mediatest.Cover, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Empty(t, info.Video)
			require.Equal(t, "mp3", only(t, info.Audio).Codec)
			require.Equal(t, "mjpeg", only(t, info.Other).Codec)
		}},
		{mediatest.OddSize, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, [2]int{853, 479}, [2]int{only(t, info.Video).Width, info.Video[0].Height})
		}},
		{mediatest.VP9Opus, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, "vp9 opus", only(t, info.Video).Codec+" "+only(t, info.Audio).Codec)
		}},
		{mediatest.ManyStreams, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			only(t, info.Video)
			only(t, info.Subtitles)
			require.Len(t, info.Audio, 2)
			require.Equal(t, "eng true", language(info.Audio[0]))
			require.Equal(t, "deu false", language(info.Audio[1]))
		}},
		{mediatest.Surround, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, 6, only(t, info.Audio).Channels)
		}},
		{mediatest.Deep444, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, "yuv444p10le", only(t, info.Video).PixelFormat)
		}},
		{mediatest.HDR10, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, "hevc smpte2084", only(t, info.Video).Codec+" "+info.Video[0].ColorTransfer)
		}},
		{mediatest.ProRes, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, "prores pcm_s16le", only(t, info.Video).Codec+" "+only(t, info.Audio).Codec)
			require.Equal(t, "data", only(t, info.Other).Kind)
		}},
		{mediatest.Interlaced, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, "16:15", only(t, info.Video).SampleAspectRatio)
			require.Equal(t, "tt", info.Video[0].FieldOrder)
			require.Equal(t, "25/1", info.Video[0].FrameRate.String())
			require.Equal(t, "mp2", only(t, info.Audio).Codec)
		}},
		{mediatest.OffsetStart, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.InDelta(t, 1000, info.Start.Seconds(), 2)
		}},
		{mediatest.OneFrame, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, 1, only(t, info.Video).Frames)
			require.Empty(t, info.Audio)
		}},
		{mediatest.GIF, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, "gif", only(t, info.Video).Codec)
			require.Equal(t, 20, info.Video[0].Frames)
		}},
		{mediatest.TailMoov, func(t *testing.T, info mediatest.Info) {
			t.Helper()
			require.Equal(t, 7*time.Second, info.Duration)
		}},
	} {
		t.Run(string(test.id), func(t *testing.T) {
			t.Parallel()

			path := mediatest.Clip(t, test.id)
			test.check(t, mediatest.Probe(t, path))
			mediatest.DecodeClean(t, path)
		})
	}
}

func only(t *testing.T, streams []mediatest.Stream) mediatest.Stream {
	t.Helper()
	require.Len(t, streams, 1)

	return streams[0]
}

func language(stream mediatest.Stream) string {
	if stream.Default {
		return stream.Language + " true"
	}

	return stream.Language + " false"
}

// TestBrokenClips guarantees that the broken clips are broken in the way they promise.
func TestBrokenClips(t *testing.T) {
	t.Parallel()

	film := read(t, mediatest.Film)

	require.Equal(t, film[:len(film)/2], read(t, mediatest.TruncatedTail))
	require.Equal(t, read(t, mediatest.TailMoov)[:len(read(t, mediatest.TailMoov))/2], read(t, mediatest.TruncatedIndex))
	require.Empty(t, read(t, mediatest.Empty))
	require.Contains(t, string(read(t, mediatest.Text)), "English")

	corrupt := read(t, mediatest.Corrupt)
	require.Len(t, corrupt, len(film))
	require.NotEqual(t, film, corrupt)

	truncated := mediatest.Probe(t, mediatest.Clip(t, mediatest.TruncatedTail))
	require.Equal(t, 7*time.Second, truncated.Duration, "the header still promises the whole film")
	require.Less(t, truncated.Video[0].Frames, 120)
}

func read(t *testing.T, id mediatest.ID) []byte {
	t.Helper()

	path := mediatest.Clip(t, id)
	require.Equal(t, ".mp4", filepath.Ext(path))

	content, err := os.ReadFile(path)
	require.NoError(t, err)

	return content
}

// TestKeyframeTimes guarantees that keyframes are reported at their presentation times.
func TestKeyframeTimes(t *testing.T) {
	t.Parallel()

	require.Equal(t, []time.Duration{0, 2 * time.Second, 4 * time.Second, 6 * time.Second},
		mediatest.KeyframeTimes(t, mediatest.Clip(t, mediatest.Film)))
}

// TestSpans guarantees that spans come from the packets, priming left out.
func TestSpans(t *testing.T) {
	t.Parallel()

	spans := mediatest.Spans(t, mediatest.Clip(t, mediatest.Film))
	require.Len(t, spans, 2)
	require.Equal(t, mediatest.Span{First: 0, End: 7 * time.Second}, spans[0])
	require.Zero(t, spans[1].First)
	require.InDelta(t, 7, spans[1].End.Seconds(), 0.022)
}

// TestBeats guarantees that flashes and tones are found where FlashBeep puts them, to within an audio packet.
func TestBeats(t *testing.T) {
	t.Parallel()

	beats := mediatest.Beats(t, mediatest.Clip(t, mediatest.FlashBeep))
	require.Len(t, beats, 5)

	for i, beat := range beats {
		require.Equal(t, time.Duration(i+1)*time.Second, beat.Flash.Round(time.Millisecond))
		require.InDelta(t, 0, beat.Offset().Seconds(), 0.005)
	}
}

// TestPlaylist guarantees that the probes read an HLS playlist, from a file and over HTTP.
func TestPlaylist(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	output := ffmpeg(t, "-i", mediatest.Clip(t, mediatest.Film), "-c", "copy", "-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod",
		"-hls_segment_type", "fmp4", "-hls_segment_filename", filepath.Join(dir, "%d.m4s"), filepath.Join(dir, "index.m3u8"))
	require.Empty(t, output)

	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)

	for _, playlist := range []string{filepath.Join(dir, "index.m3u8"), server.URL + "/index.m3u8"} {
		info := mediatest.Probe(t, playlist)
		require.Equal(t, 168, info.Video[0].Frames)

		span := mediatest.Spans(t, playlist)[info.Video[0].Index]
		require.Equal(t, 7*time.Second, span.End-span.First)
		mediatest.DecodeClean(t, playlist)
	}
}

// TestZoom1080 guarantees a source of the asked length with room for a full ladder.
func TestZoom1080(t *testing.T) {
	t.Parallel()

	info := mediatest.Probe(t, mediatest.Zoom1080(t, 8*time.Second))
	require.Equal(t, [2]int{1920, 1080}, [2]int{info.Video[0].Width, info.Video[0].Height})
	require.Equal(t, 192, info.Video[0].Frames)
	require.InDelta(t, 8, info.Audio[0].Duration.Seconds(), 0.03)
}

// TestDisguises guarantees that FFmpeg, left to itself, falls for the disguised scripts: a product that refuses them
// refuses something real.
func TestDisguises(t *testing.T) {
	t.Parallel()

	var secret atomic.Bool

	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	playlist := mediatest.DisguisedPlaylist(t, server.URL+"/secret.ts")

	mux.HandleFunc("/clip.mp4", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, playlist) })
	mux.HandleFunc("/secret.ts", func(w http.ResponseWriter, r *http.Request) {
		secret.Store(true)
		http.NotFound(w, r)
	})

	ffmpeg(t, "-i", server.URL+"/clip.mp4", "-f", "null", "-")
	require.True(t, secret.Load(), "FFmpeg reads the playlist over HTTP and follows it")

	script := mediatest.DisguisedConcat(t, mediatest.Clip(t, mediatest.OneFrame))
	require.Empty(t, ffmpeg(t, "-i", script, "-f", "null", "-"), "the neighbour decodes")
}

// ffmpeg returns what FFmpeg, with its own defaults, complains about.
func ffmpeg(t *testing.T, args ...string) string {
	t.Helper()

	args = append([]string{"-hide_banner", "-nostdin", "-v", "error"}, args...)
	output, err := exec.CommandContext(t.Context(), "ffmpeg", args...).CombinedOutput()

	if _, complained := errors.AsType[*exec.ExitError](err); !complained {
		require.NoError(t, err)
	}

	return string(output)
}

// TestNumbered guarantees that each picture of a numbered clip can be told, whatever its kind, and that each second
// begins with a flash, and with a tone where there is sound.
func TestNumbered(t *testing.T) {
	t.Parallel()

	for _, id := range []mediatest.ID{mediatest.Film, mediatest.Interlaced} {
		pictures := mediatest.Watch(t, mediatest.Numbered(t, id))
		flashes := []time.Duration{}

		for i, p := range pictures {
			require.Equal(t, i, p.Number, id)

			if p.Flash {
				flashes = append(flashes, p.At-pictures[0].At)
			}
		}

		require.Len(t, flashes, int(mediatest.NumberedLength.Seconds())-1, id)
		require.Len(t, mediatest.Tones(t, mediatest.Numbered(t, id)), len(flashes), id)

		for i, at := range flashes {
			require.InDelta(t, float64(i+1), at.Seconds(), 0.001, id)
		}
	}
}
