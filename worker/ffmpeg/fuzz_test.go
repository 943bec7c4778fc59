package ffmpeg

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"

	"buf.build/go/protovalidate"
	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// FuzzHeader guarantees that whatever ffprobe says of a source is told in words
// that the API takes: a report that validation refuses would never end.
func FuzzHeader(f *testing.F) {
	f.Add([]byte(`{"format":{"format_name":"mov,mp4","duration":"10.5","start_time":"-0.02","bit_rate":"1000"},
		"streams":[{"index":0,"codec_type":"video","codec_name":"h264","width":1920,"height":1080,"avg_frame_rate":"30000/1001",
		"r_frame_rate":"30/1","sample_aspect_ratio":"4:3","side_data_list":[{"rotation":-90}],"tags":{"language":"eng","DURATION":"00:00:10.5"}},
		{"index":1,"codec_type":"audio","codec_name":"aac","sample_rate":"48000","channels":6}]}`))
	f.Add([]byte(`{"format":{"format_name":"a","duration":"1e300","start_time":"NaN"},"streams":[{"level":-99,"avg_frame_rate":"0/0",
		"side_data_list":[{"rotation":1e308},{}],"sample_rate":"99999999999999999999","nb_frames":"-1","channels":4294967295}]}`))

	f.Fuzz(func(t *testing.T, raw []byte) {
		var found header
		if json.Unmarshal(raw, &found) != nil {
			return
		}

		result := found.result(1)
		require.NoError(t, protovalidate.Validate(result))
		require.LessOrEqual(t, result.GetDuration().AsDuration().Abs(), maxDuration)

		for _, stream := range result.GetStreams() {
			require.LessOrEqual(t, stream.GetDuration().AsDuration().Abs(), maxDuration)
			require.LessOrEqual(t, stream.GetStartTime().AsDuration().Abs(), maxDuration)
			require.Contains(t, []uint32{0, 90, 180, 270}, stream.GetRotationDegrees())
		}
	})
}

// FuzzClock guarantees that no text is a time that can't be.
func FuzzClock(f *testing.F) {
	for _, text := range []string{"00:00:10.500000000", "1:2:3", "65535:255:1e9", "-1:0:0", "::", "1e9", "NaN", "60000:0:0", "0:0:-1"} {
		f.Add(text)
	}

	f.Fuzz(func(t *testing.T, text string) {
		if d, ok := clock(text); ok {
			require.True(t, 0 <= d && d <= maxDuration)
		}

		if d, ok := parseSeconds(text); ok {
			require.LessOrEqual(t, d.Abs(), maxDuration)
		}
	})
}

// FuzzTracks guarantees that no file breaks the readers of tracks and segments:
// what can't be read is an error.
func FuzzTracks(f *testing.F) {
	initial := mp4.CreateEmptyInit()
	initial.AddEmptyTrack(12800, "video", "und")
	require.NoError(f, initial.Moov.Trak.SetAVCDescriptor("avc1",
		[][]byte{{0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x16, 0x2d, 0x96}},
		[][]byte{{0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0}}, true))

	var head, media bytes.Buffer

	require.NoError(f, initial.Encode(&head))

	segment := mp4.NewMediaSegment()
	fragment, err := mp4.CreateFragment(1, 1)
	require.NoError(f, err)
	fragment.AddFullSample(mp4.FullSample{
		Sample: mp4.Sample{Flags: mp4.SyncSampleFlags, Dur: 512, Size: 4}, Data: []byte{0, 0, 0, 0},
	})
	segment.AddFragment(fragment)
	require.NoError(f, segment.Encode(&media))

	f.Add(head.Bytes())
	f.Add(media.Bytes())
	f.Add(append(head.Bytes(), media.Bytes()...))

	f.Fuzz(func(t *testing.T, raw []byte) {
		tracks, err := readTracks(bytes.NewReader(raw))
		if err == nil {
			require.NotEmpty(t, tracks)

			if peak, err := peakBytes(tracks, uint64(len(raw))); err == nil {
				require.LessOrEqual(t, peak, uint64(len(raw)))
			}
		}

		for _, one := range append(tracks, track{isVideo: true}) {
			if made, err := readSegment(bytes.NewReader(raw), one); err == nil {
				require.Positive(t, made.frames)
			}
		}
	})
}

// FuzzIndex guarantees that no index of a source makes reading it fail, and
// that what is told of it is a table as planning takes it: keyframes in order,
// each among the pictures and shown after the one before.
func FuzzIndex(f *testing.F) {
	box := func(name string, content ...[]byte) []byte {
		all := bytes.Join(content, nil)

		return append(binary.BigEndian.AppendUint32(nil, uint32(8+len(all))), append([]byte(name), all...)...)
	}
	words := func(numbers ...uint32) []byte {
		var raw []byte
		for _, n := range numbers {
			raw = binary.BigEndian.AppendUint32(raw, n)
		}

		return raw
	}
	track := func(handler string, edits []byte, samples ...[]byte) []byte {
		return box("trak", edits, box("mdia",
			box("mdhd", words(0, 0, 0, 25, 4)), box("hdlr", words(0, 0), []byte(handler), words(0, 0, 0)),
			box("minf", box("stbl", append([][]byte{box("stsd", words(0, 1))}, samples...)...))))
	}
	video := track("vide", box("edts", box("elst", words(0, 1, 160, 1, 1<<16))),
		box("stts", words(0, 1, 4, 1)), box("ctts", words(0, 2, 2, 1, 2, 1)), box("stss", words(0, 2, 1, 3)), box("stsz", words(0, 1, 4)))
	sound := track("soun", nil, box("stts", words(0, 1, 4, 1)), box("stsz", words(0, 0, 4, 9, 8, 7, 6)),
		box("stsc", words(0, 2, 1, 1, 1, 2, 3, 1)), box("stco", words(0, 2, 48, 64)))
	head := box("mvhd", words(0, 0, 0, 1000, 160))
	f.Add(bytes.Join([][]byte{head, video, sound}, nil))
	f.Add(append(append(words(1), "free\x00\x00\x00\x00\x00\x00\x00\x10"...), head...))

	f.Fuzz(func(t *testing.T, raw []byte) {
		movie, err := parseMovie(raw)
		if err != nil {
			return
		}

		// What ffprobe would say of the tracks.
		result := &tcoderv1.ProbeResult{}

		for i, track := range movie.tracks {
			kind := tcoderv1.StreamKind_STREAM_KIND_VIDEO
			if track.handler == "soun" {
				kind = tcoderv1.StreamKind_STREAM_KIND_AUDIO
			}

			result.Streams = append(result.Streams, &tcoderv1.StreamInfo{Index: uint32(i), Kind: kind, FrameCount: track.frames})
		}

		movie.tell(result)

		if from, ok := movie.edges(); ok {
			require.Positive(t, from.packets)
			require.LessOrEqual(t, from.tail, from.end)
			require.LessOrEqual(t, from.end, maxDuration)
			require.Less(t, int(from.stream), len(movie.tracks))
			require.GreaterOrEqual(t, from.pictures, 0)
		}

		for _, track := range movie.tracks {
			at, ok := track.end(movie.timescale)
			require.True(t, at >= 0 && at <= maxDuration && (ok || at == 0))

			_, _ = track.bytesEnd()
		}

		for _, stream := range result.GetStreams() {
			table := stream.GetKeyframes()
			if table == nil {
				continue
			}

			require.NoError(t, protovalidate.Validate(table))
			require.Len(t, table.GetTicks(), len(table.GetFrames()))
			require.Zero(t, table.GetFrames()[0])
			require.Zero(t, table.GetTicks()[0])
			require.Positive(t, table.GetFrameRate().GetNum())
			require.Positive(t, table.GetFrameRate().GetDen())
			require.Less(t, table.GetFrames()[len(table.GetFrames())-1], table.GetFrameCount())
			require.Positive(t, result.GetMaxGop().AsDuration())

			for i := 1; i < len(table.GetFrames()); i++ {
				require.Greater(t, table.GetFrames()[i], table.GetFrames()[i-1])
				require.Greater(t, table.GetTicks()[i], table.GetTicks()[i-1])
			}
		}
	})
}
