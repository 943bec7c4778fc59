package mediatest

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	"github.com/stretchr/testify/require"
)

// HLS is an output as its playlists tell of it.
type HLS struct {
	// Variants are the media playlists of the master playlist, in its order, and then that of the sound if it is apart.
	Variants []Variant
}

// Variant is a media playlist.
type Variant struct {
	URI      string
	Codecs   string // of the master playlist; empty for sound that is apart
	Target   time.Duration
	Init     string
	Segments []HLSSegment
}

// HLSSegment is a line of a media playlist.
type HLSSegment struct {
	URI      string
	Duration time.Duration
}

// Duration is how long all segments last.
func (v Variant) Duration() time.Duration {
	var sum time.Duration
	for _, s := range v.Segments {
		sum += s.Duration
	}

	return sum
}

// hlsSlack is by how much what playlists say may be off: timestamps of sources that are copied are rounded to a
// millisecond.
const hlsSlack = 3 * time.Millisecond

// hlsPriming is by how much sound may be longer than it plays: two frames of 1024 samples, at 44.1 kHz.
const hlsPriming = 47 * time.Millisecond

// CheckHLS reads an HLS output by its master playlist and fails the test unless all of it is as RFC 8216 and players
// want it: every name leads to bytes, durations are the segments' own and keep to the target, timestamps go on without
// a hole or a discontinuity, all pictures are cut alike, bitrates and codecs are those of the bytes. read returns the
// file of a name below the output's folder. One that isn't final grows: its renditions may differ in length.
func CheckHLS(t testing.TB, final bool, read func(name string) ([]byte, error)) HLS {
	t.Helper()

	c := hlsCheck{TB: t, final: final, read: read}
	lines := c.lines("master.m3u8")
	groups := map[string]Variant{}

	var found HLS

	for i, line := range lines {
		attributes := attributesOf(line)

		switch {
		case strings.HasPrefix(line, "#EXT-X-MEDIA:"):
			require.Equal(t, "AUDIO", attributes["TYPE"])
			groups[attributes["GROUP-ID"]] = c.variant(attributes["URI"])
		case strings.HasPrefix(line, "#EXT-X-STREAM-INF:"):
			require.Less(t, i+1, len(lines), "the last variant has no name")
			v := c.variant(lines[i+1])
			v.Codecs = attributes["CODECS"]
			sound := groups[attributes["AUDIO"]]
			require.Equal(t, attributes["AUDIO"] != "", sound.URI != "", "%s: a variant's sound isn't there", v.URI)
			c.describes(attributes, v, sound)
			found.Variants = append(found.Variants, v)
		}
	}

	require.NotEmpty(t, found.Variants, "the master playlist has no variant")
	c.aligned(found.Variants)

	for _, sound := range groups {
		require.Equal(t, found.Variants[0].Target, sound.Target, "target durations differ")

		if final {
			require.InDelta(t, found.Variants[0].Duration().Seconds(), sound.Duration().Seconds(), 1, "sound and picture differ in length")
		}

		found.Variants = append(found.Variants, sound)
	}

	return found
}

// hlsCheck is one check.
type hlsCheck struct {
	testing.TB

	final bool
	read  func(name string) ([]byte, error)
}

func (c hlsCheck) file(name string) []byte {
	c.Helper()

	content, err := c.read(name)
	require.NoError(c, err, name)
	require.NotEmpty(c, content, name)

	return content
}

// lines are those of a playlist.
func (c hlsCheck) lines(name string) []string {
	c.Helper()

	text := string(c.file(name))
	require.True(c, strings.HasSuffix(text, "\n"), "%s is cut off", name)

	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	require.Equal(c, "#EXTM3U", lines[0], name)
	require.Contains(c, lines, "#EXT-X-INDEPENDENT-SEGMENTS", name)

	return lines
}

// variant reads a media playlist and its segments.
func (c hlsCheck) variant(uri string) Variant {
	c.Helper()

	v := Variant{URI: uri}
	kind := "EVENT"

	if c.final {
		kind = "VOD"
	}

	lines := c.lines(uri)
	require.Contains(c, lines, "#EXT-X-PLAYLIST-TYPE:"+kind, uri)
	require.Contains(c, lines, "#EXT-X-MEDIA-SEQUENCE:0", uri)
	require.Equal(c, c.final, lines[len(lines)-1] == "#EXT-X-ENDLIST", "%s: only a final playlist has an end", uri)

	seen := map[string]bool{}

	for i, line := range lines {
		name, value, _ := strings.Cut(line, ":")

		switch name {
		case "#EXT-X-TARGETDURATION":
			seconds, err := strconv.Atoi(value)
			require.NoError(c, err, uri)

			v.Target = time.Duration(seconds) * time.Second
		case "#EXT-X-MAP":
			require.Empty(c, v.Init, "%s: a second init segment", uri)
			v.Init = below(uri, attributesOf(line)["URI"])
		case "#EXT-X-DISCONTINUITY":
			require.Fail(c, "a discontinuity", uri)
		case "#EXTINF":
			seconds, err := strconv.ParseFloat(strings.TrimSuffix(value, ","), 64)
			require.NoError(c, err, uri)

			segment := HLSSegment{URI: below(uri, lines[i+1]), Duration: time.Duration(seconds * float64(time.Second))}
			require.False(c, seen[segment.URI], "%s: %s is there twice", uri, segment.URI)
			require.LessOrEqual(c, segment.Duration.Round(time.Second), v.Target, "%s: %s", uri, segment.URI)

			seen[segment.URI] = true
			v.Segments = append(v.Segments, segment)
		}
	}

	require.NotEmpty(c, v.Segments, uri)
	require.NotEmpty(c, v.Init, uri)
	c.continuous(v)

	return v
}

// continuous compares the times in the segments with those that the playlist says.
func (c hlsCheck) continuous(v Variant) {
	c.Helper()

	initial, err := mp4.DecodeFile(bytes.NewReader(c.file(v.Init)))
	require.NoError(c, err, v.Init)
	require.NotNil(c, initial.Init, v.Init)

	timescale := float64(initial.Init.Moov.Trak.Mdia.Mdhd.Timescale)
	slack, initialSlack := hlsSlack, hlsSlack

	if initial.Init.Moov.Trak.Mdia.Minf.Smhd != nil { // the first segment is longer than it plays
		slack, initialSlack = 2*hlsSlack+hlsPriming, hlsPriming
	}

	var first, at time.Duration

	for i, s := range v.Segments {
		media, err := mp4.DecodeFile(bytes.NewReader(c.file(s.URI)))
		require.NoError(c, err, s.URI)
		require.NotEmpty(c, media.Segments, s.URI)

		begin := media.Segments[0].Fragments[0].Moof.Traf.Tfdt.BaseMediaDecodeTime()
		start := time.Duration(float64(begin) / timescale * float64(time.Second))

		if i == 0 {
			first = start
		}

		require.InDelta(c, at.Seconds(), (start - first).Seconds(), slack.Seconds(), "%s doesn't go on where the one before ends", s.URI)
		at += s.Duration

		lasts := time.Duration(float64(ticksOf(initial.Init, media)) / timescale * float64(time.Second))
		allowed := hlsSlack

		if i == 0 {
			allowed = initialSlack
		}

		require.InDelta(c, lasts.Seconds(), s.Duration.Seconds(), allowed.Seconds(), "%s lasts longer or shorter", s.URI)
	}
}

// ticksOf is how long all samples of a segment last.
func ticksOf(initial *mp4.InitSegment, media *mp4.File) uint64 {
	var ticks uint64

	for _, segment := range media.Segments {
		for _, fragment := range segment.Fragments {
			for _, run := range fragment.Moof.Traf.Truns {
				ticks += run.AddSampleDefaultValues(fragment.Moof.Traf.Tfhd, initial.Moov.Mvex.Trex)
			}
		}
	}

	return ticks
}

// average is the bitrate of all segments.
func (c hlsCheck) average(v Variant) float64 {
	c.Helper()

	bits := 0
	for _, s := range v.Segments {
		bits += 8 * len(c.file(s.URI))
	}

	return float64(bits) / max(v.Duration().Seconds(), 0.001)
}

// describes compares what the master playlist says of a variant, and of the sound that goes with it if there is any,
// with their bytes.
func (c hlsCheck) describes(attributes map[string]string, v, sound Variant) {
	c.Helper()

	bandwidth, err := strconv.ParseFloat(attributes["BANDWIDTH"], 64)
	require.NoError(c, err, v.URI)

	beside := c.average(sound)
	for _, s := range v.Segments {
		if s.Duration < v.Target/2 {
			continue // the rule is about whole target durations
		}

		bitrate := beside + float64(len(c.file(s.URI)))*8/math.Max(s.Duration.Seconds(), v.Target.Seconds()/2)
		if c.final {
			require.LessOrEqual(c, bitrate, bandwidth*1.01, "%s has more bits than its variant says", s.URI)
		}
	}

	require.NotEmpty(c, v.Codecs, "%s: no codecs", v.URI)
	require.Equal(c, sound.URI != "" || strings.HasPrefix(v.Codecs, "mp4a."), strings.Contains(v.Codecs, "mp4a.40.2"), "%s: %s", v.URI, v.Codecs)

	initial, err := mp4.DecodeFile(bytes.NewReader(c.file(v.Init)))
	require.NoError(c, err, v.Init)

	stsd := initial.Init.Moov.Trak.Mdia.Minf.Stbl.Stsd
	require.Len(c, stsd.Children, 1, v.Init)

	kind := stsd.Children[0].Type()
	require.True(c, strings.HasPrefix(v.Codecs, kind+"."), "%s holds %s, its variant says %s", v.Init, kind, v.Codecs)

	if stsd.AvcX != nil {
		require.Contains(c, strings.ToLower(v.Codecs), kind+"."+avcCodec(stsd.AvcX.AvcC), v.Init)
	}

	if resolution := attributes["RESOLUTION"]; kind != "mp4a" {
		tkhd := initial.Init.Moov.Trak.Tkhd
		require.Equal(c, strconv.Itoa(int(tkhd.Width>>16))+"x"+strconv.Itoa(int(tkhd.Height>>16)), resolution, v.URI)
		require.NotEmpty(c, attributes["FRAME-RATE"], v.URI)
	}
}

// avcCodec is the part of a codecs string that tells profile and level.
func avcCodec(box *mp4.AvcCBox) string {
	const hex = "0123456789abcdef"

	var b strings.Builder
	for _, part := range []byte{box.AVCProfileIndication, box.ProfileCompatibility, box.AVCLevelIndication} {
		b.WriteByte(hex[part>>4])
		b.WriteByte(hex[part&15])
	}

	return b.String()
}

// aligned checks that a player can change between variants at each segment.
func (c hlsCheck) aligned(variants []Variant) {
	c.Helper()

	first := variants[0]
	for _, v := range variants[1:] {
		require.Equal(c, first.Target, v.Target, "target durations differ")

		if c.final {
			require.Len(c, v.Segments, len(first.Segments), "%s and %s differ", first.URI, v.URI)
		}

		for i := range min(len(first.Segments), len(v.Segments)) {
			require.InDelta(c, first.Segments[i].Duration.Seconds(), v.Segments[i].Duration.Seconds(), 0.003,
				"segment %d of %s and %s", i, first.URI, v.URI)
		}
	}
}

// below is the name that a playlist means.
func below(playlist, uri string) string {
	return filepath.ToSlash(filepath.Join(filepath.Dir(playlist), uri))
}

var attribute = regexp.MustCompile(`([A-Z0-9-]+)=("[^"]*"|[^,]*)`)

func attributesOf(line string) map[string]string {
	attributes := map[string]string{}

	_, list, _ := strings.Cut(line, ":")
	for _, match := range attribute.FindAllStringSubmatch(list, -1) {
		attributes[match[1]] = strings.Trim(match[2], `"`)
	}

	return attributes
}

// CheckHLSDir is CheckHLS of a final output in a folder.
func CheckHLSDir(t testing.TB, dir string) HLS {
	t.Helper()

	return CheckHLS(t, true, func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))) })
}

// Looped returns a clip of the given length, 1280x720 at 24 frames per second with sound: the film over and over.
func Looped(t testing.TB, length time.Duration) string {
	t.Helper()

	path, err := clip(t.Context(), cacheDir(t), "looped-"+length.String(), recipe{
		ext:  ".mp4",
		from: []ID{Film},
		args: split("-stream_loop -1 -i {0} -t " + strconv.FormatFloat(length.Seconds(), 'f', -1, 64) +
			" -c copy -movflags +faststart"),
	})
	require.NoError(t, err)

	return path
}
