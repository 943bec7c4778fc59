package media

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// playlistType is the MIME type of HLS playlists.
const playlistType = "application/vnd.apple.mpegurl"

// segment is one line of a media playlist.
type segment struct {
	uri      string
	duration time.Duration
}

// playlist is a media playlist.
type playlist struct {
	run           int  // of the job
	final         bool // VOD; EVENT while it grows
	initURI       string
	segments      []segment
	targetSeconds int
}

// mediaPlaylist writes a playlist of CMAF segments (RFC 8216).
func mediaPlaylist(p playlist) []byte {
	var b strings.Builder
	kind := "EVENT"
	if p.final {
		kind = "VOD"
	}
	b.WriteString("#EXTM3U\n" + runLine(p.run, p.final))
	fmt.Fprintf(&b, "#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:%d\n#EXT-X-MEDIA-SEQUENCE:0\n", p.targetSeconds)
	fmt.Fprintf(&b, "#EXT-X-PLAYLIST-TYPE:%s\n#EXT-X-INDEPENDENT-SEGMENTS\n", kind)
	if !p.final { // it isn't live: who opens it wants to see its start
		b.WriteString("#EXT-X-START:TIME-OFFSET=0\n")
	}
	fmt.Fprintf(&b, "#EXT-X-MAP:URI=\"%s\"\n", p.initURI)
	for _, s := range p.segments {
		fmt.Fprintf(&b, "#EXTINF:%.6f,\n%s\n", s.duration.Seconds(), s.uri)
	}
	if p.final {
		b.WriteString("#EXT-X-ENDLIST\n")
	}

	return []byte(b.String())
}

// runLine is a comment by which manifests of one key can be put in order.
func runLine(run int, final bool) string {
	line := runComment + strconv.Itoa(run)
	if final {
		line += ", final"
	}

	return line + "\n"
}

// variant is one line of a master playlist.
type variant struct {
	result RenditionResult
	uri    string
}

// audioGroup is the name of the audio renditions in a master playlist.
const audioGroup = "audio"

// masterPlaylist writes a master playlist: variants of video, largest first,
// and the audio rendition that they share. Either may be missing.
func masterPlaylist(o OutputPlan, run int, final bool, videos []variant, audio *variant) []byte {
	var b strings.Builder
	var language string
	var channels int
	if o.Audio != nil {
		language, channels = o.Audio.Language, o.Audio.Channels
	}
	b.WriteString("#EXTM3U\n" + runLine(run, final) + "#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	if audio != nil && len(videos) > 0 {
		fmt.Fprintf(&b, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"%s\",NAME=\"%s\",", audioGroup, audio.result.Name)
		if language != "" {
			fmt.Fprintf(&b, "LANGUAGE=\"%s\",", attribute(language))
		}
		fmt.Fprintf(&b, "DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"%d\",URI=\"%s\"\n", channels, audio.uri)
	}
	if len(videos) == 0 && audio != nil {
		r := audio.result
		fmt.Fprintf(&b, "#EXT-X-STREAM-INF:%s,CODECS=\"%s\"\n%s\n",
			bandwidth(r.PeakBitrateBPS, r.AverageBitrateBPS), r.Codecs, audio.uri)
	}
	for _, v := range videos {
		r := v.result
		peak, average, codecs, group := r.PeakBitrateBPS, r.AverageBitrateBPS, r.Codecs, ""
		if audio != nil {
			peak += audio.result.PeakBitrateBPS
			if average > 0 {
				average += audio.result.AverageBitrateBPS
			}
			codecs += "," + audio.result.Codecs
			group = fmt.Sprintf(",AUDIO=\"%s\"", audioGroup)
		}
		fmt.Fprintf(&b, "#EXT-X-STREAM-INF:%s,RESOLUTION=%dx%d,FRAME-RATE=%.3f,CODECS=\"%s\"%s\n%s\n",
			bandwidth(peak, average), r.Width, r.Height, r.FrameRate.Float(), codecs, group, v.uri)
	}

	return []byte(b.String())
}

// bandwidth are the attributes of bitrates; an average of 0 isn't known yet. The
// two are rounded by themselves: a peak is never less than its average.
func bandwidth(peak, average int64) string {
	if average == 0 {
		return fmt.Sprintf("BANDWIDTH=%d", peak)
	}

	return fmt.Sprintf("BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d", max(peak, average), average)
}

// attribute drops what a quoted attribute can't hold.
func attribute(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '"' || r < ' ' {
			return -1
		}

		return r
	}, s)
}

// peakBitrate is the largest bitrate of any run of segments that lasts from a
// half to one and a half target durations, as RFC 8216 defines BANDWIDTH; the
// average where no run does.
func peakBitrate(segments []EncodedObject, target int) int64 {
	var peak, totalBytes int64
	var total time.Duration
	low, high := float64(target)/2, float64(target)*1.5
	for i := range segments {
		totalBytes += segments[i].SizeBytes
		total += segments[i].Duration
		var bytes int64
		var seconds float64
		for _, s := range segments[i:] {
			bytes += s.SizeBytes
			seconds += s.Duration.Seconds()
			if seconds > high {
				break
			}
			if seconds >= low {
				peak = max(peak, int64(float64(bytes)*8/seconds))
			}
		}
	}
	if peak == 0 {
		return averageBitrate(totalBytes, total)
	}

	return peak
}

func averageBitrate(bytes int64, d time.Duration) int64 {
	if d <= 0 {
		return 0
	}

	return int64(float64(bytes) * 8 / d.Seconds())
}
