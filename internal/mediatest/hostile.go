package mediatest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/stretchr/testify/require"
)

// Hostile writes files called clip.mp4 that are none, and refer to a target (an http or file URL) in every way that
// FFmpeg knows of. They are returned by what they are.
func Hostile(t testing.TB, target string) map[string]string {
	t.Helper()

	files := map[string]string{}
	for name, content := range scripts(target) {
		files[name] = disguised(t, content)
	}

	for name, change := range map[string]func(*mp4.DrefBox){
		"mov, data by url": func(box *mp4.DrefBox) {
			box.Children = []mp4.Box{&mp4.URLBox{Location: target}}
		},
		"mov, data by alias": func(box *mp4.DrefBox) {
			alias := append([]byte{0, 0, 0, 0}, target...)
			box.Children = []mp4.Box{mp4.CreateUnknownBox("alis", uint64(8+len(alias)), alias)}
		},
	} {
		files[name] = withDataReference(t, change)
	}

	// QuickTime's movie that is only a name.
	name := append([]byte("\x00\x00\x00\x00url "), binary.BigEndian.AppendUint32(nil, uint32(len(target)+1))...)
	name = append(append(name, target...), 0)
	files["mov, reference movie"] = disguised(t, string(box("ftyp", []byte("qt  \x00\x00\x02\x00qt  ")))+
		string(box("moov", box("rmra", box("rmda", box("rdrf", name))))))

	return files
}

func scripts(target string) map[string]string {
	const pixels = `width="64" height="64"`

	return map[string]string{
		"hls":          fmt.Sprintf("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s\n#EXT-X-ENDLIST\n", target),
		"hls, suffix":  fmt.Sprintf("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n%s?x=.ts\n#EXT-X-ENDLIST\n", target),
		"hls, master":  fmt.Sprintf("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n%s#.m3u8\n", target),
		"hls, key":     fmt.Sprintf("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-KEY:METHOD=AES-128,URI=\"%s\"\n#EXTINF:10,\nx.ts\n#EXT-X-ENDLIST\n", target),
		"hls, init":    fmt.Sprintf("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MAP:URI=\"%s\"\n#EXTINF:10,\nx.m4s\n#EXT-X-ENDLIST\n", target),
		"hls, crypto":  fmt.Sprintf("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ncrypto+%s\n#EXT-X-ENDLIST\n", target),
		"hls, concat":  fmt.Sprintf("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nconcat:%s|subfile,,start,0,end,9,,:%s\n#EXT-X-ENDLIST\n", target, target),
		"plain list":   target + "\n",
		"concat":       fmt.Sprintf("ffconcat version 1.0\nfile '%s'\n", target),
		"concat, line": fmt.Sprintf("file '%s'\n", target),
		"dash": `<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S" ` +
			`profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">` +
			`<Representation id="1" bandwidth="1"><BaseURL>` + target + `</BaseURL></Representation></AdaptationSet></Period></MPD>`,
		"imf": `<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>` + target + `</Id></CompositionPlaylist>`,
		"smooth": `<SmoothStreamingMedia MajorVersion="2" Duration="90000000"><StreamIndex Type="video" Url="` + target +
			`"><QualityLevel Index="0"/></StreamIndex></SmoothStreamingMedia>`,
		"sdp":          "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 " + host(target) + "\nt=0 0\nm=video 9999 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
		"rtsp list":    "[Reference]\nRef1=" + strings.Replace(target, "http://", "rtsp://", 1) + "\n",
		"svg":          `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` + pixels + `><image ` + pixels + ` xlink:href="` + target + `"/></svg>`,
		"svg, entity":  `<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "` + target + `">]><svg xmlns="http://www.w3.org/2000/svg" ` + pixels + `><text>&x;</text></svg>`,
		"svg, include": `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xi="http://www.w3.org/2001/XInclude" ` + pixels + `><xi:include href="` + target + `" parse="text"/></svg>`,
		"subtitles, ass": "[Script Info]\nScriptType: v4.00+\nVideo File: " + target + "\n[Fonts]\nfontname: " + target +
			"\n[Events]\nFormat: Start, End, Text\nDialogue: 0:00:00.00,0:00:01.00,{\\fn" + target + "}x\n",
		"subtitles, srt":    "1\n00:00:00,000 --> 00:00:01,000\n<img src=\"" + target + "\">\n",
		"subtitles, vtt":    "WEBVTT\n\nSTYLE\n::cue { background: url(" + target + ") }\n\n00:00.000 --> 00:01.000\nx\n",
		"subtitles, vobsub": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n# " + target + "\n",
		"avisynth":          "AVISource(\"" + target + "\")\n",
		"metadata":          ";FFMETADATA1\ntitle=" + target + "\n[STREAM]\n",
		"filter graph":      "movie=" + target + "\n",
	}
}

// host is the host of a target, this machine for a file.
func host(target string) string {
	address, isHTTP := strings.CutPrefix(target, "http://")
	if !isHTTP {
		return "127.0.0.1"
	}

	return strings.FieldsFunc(address, func(r rune) bool { return r == ':' || r == '/' })[0]
}

// withDataReference is a tiny MP4 whose tracks say that their data lies elsewhere.
func withDataReference(t testing.TB, change func(*mp4.DrefBox)) string {
	t.Helper()

	file, err := mp4.ReadMP4File(Tiny(t, "mp4"))
	require.NoError(t, err)

	for _, track := range file.Moov.Traks {
		change(track.Mdia.Minf.Dinf.Dref)
	}

	var content bytes.Buffer

	require.NoError(t, file.Encode(&content))

	return disguised(t, content.String())
}

func box(kind string, content []byte) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(8+len(content))), kind...), content...)
}

// Bombs writes small files that ask for much: memory, time, or disk. They are returned by what they are.
func Bombs(t testing.TB) map[string]string {
	t.Helper()

	dir := t.TempDir()
	files := map[string]string{}
	write := func(name string, content []byte) {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		require.NoError(t, os.WriteFile(path, content, 0o600))

		files[name] = path
	}

	// A picture of 16000 x 16000 in a few bytes, which FFmpeg would take a gigabyte for, and one of days.
	write("gif, huge", gif(16000, 1, 0))
	write("gif, endless", gif(1, 2000, 65535))
	write("png, huge", png(1<<30, 1<<30))

	wav, err := os.ReadFile(Tiny(t, "wav"))
	require.NoError(t, err)

	lying := bytes.Clone(wav)
	at := bytes.Index(lying, []byte("data"))
	require.Positive(t, at)
	binary.LittleEndian.PutUint32(lying[4:], 1<<32-1)
	binary.LittleEndian.PutUint32(lying[at+4:], 1<<32-2)
	write("wav, 4 GB promised", lying)

	avi, err := os.ReadFile(Tiny(t, "avi"))
	require.NoError(t, err)
	binary.LittleEndian.PutUint32(avi[48:], 1<<32-1) // dwTotalFrames
	at = bytes.Index(avi, []byte("vids"))
	require.Positive(t, at)
	binary.LittleEndian.PutUint32(avi[at+32:], 1<<32-1) // dwLength
	write("avi, billions of frames", avi)

	for _, table := range []string{"stts", "stsz", "stsc", "stco", "elst"} {
		content, err := os.ReadFile(Tiny(t, "mp4"))
		require.NoError(t, err)

		at := bytes.Index(content, []byte(table))
		require.Positive(t, at, table)

		count := at + 8
		if table == "stsz" {
			count += 4
		}

		binary.BigEndian.PutUint32(content[count:], 1<<31-1)
		write("mp4, billions in "+table, content)
	}

	slow, err := os.ReadFile(Tiny(t, "mp4"))
	require.NoError(t, err)

	at = bytes.Index(slow, []byte("stts"))
	require.Positive(t, at)
	binary.BigEndian.PutUint32(slow[at+16:], 1<<31-1) // how long the first pictures last
	write("mp4, frames of months", slow)

	// Boxes in boxes.
	nested := []byte{}
	for range 20_000 {
		nested = box("moov", nested)
	}

	write("mp4, nested", append(box("ftyp", []byte("isom\x00\x00\x02\x00isom")), nested...))

	return files
}

// gif is an animation of frames, each shown for a delay of hundredths of a second.
func gif(size, frames, delay uint16) []byte {
	content := binary.LittleEndian.AppendUint16([]byte("GIF89a"), size)
	content = binary.LittleEndian.AppendUint16(content, size)
	content = append(content, 0x80, 0, 0, 0, 0, 0, 255, 255, 255)               // two colours
	content = append(content, "\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"...) // for ever

	for range frames {
		content = append(content, 0x21, 0xf9, 4, 0)
		content = binary.LittleEndian.AppendUint16(content, delay)
		content = append(content, 0, 0, 0x2c, 0, 0, 0, 0)
		content = binary.LittleEndian.AppendUint16(content, size)
		content = binary.LittleEndian.AppendUint16(content, size)
		content = append(content, 0, 2, 2, 0x4c, 0x01, 0)
	}

	return append(content, 0x3b)
}

// png is a picture of a size, without its pixels.
func png(width, height uint32) []byte {
	header := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	header = append(binary.BigEndian.AppendUint32(header, height), 8, 2, 0, 0, 0)
	content := append([]byte("\x89PNG\r\n\x1a\n"), binary.BigEndian.AppendUint32(nil, uint32(len(header)-4))...)
	content = append(content, header...)

	return binary.BigEndian.AppendUint32(content, crc32.ChecksumIEEE(header))
}
