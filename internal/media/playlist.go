package media

import (
	"fmt"
	"math"
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

// mediaPlaylist writes a finished (VOD) playlist of CMAF segments (RFC 8216).
func mediaPlaylist(initURI string, segments []segment, targetSeconds int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:%d\n#EXT-X-MEDIA-SEQUENCE:0\n", targetSeconds)
	b.WriteString("#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	fmt.Fprintf(&b, "#EXT-X-MAP:URI=\"%s\"\n", initURI)
	for _, s := range segments {
		fmt.Fprintf(&b, "#EXTINF:%.6f,\n%s\n", s.duration.Seconds(), s.uri)
	}
	b.WriteString("#EXT-X-ENDLIST\n")

	return []byte(b.String())
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
func masterPlaylist(videos []variant, audio *variant, language string, channels int) []byte {
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	if audio != nil && len(videos) > 0 {
		fmt.Fprintf(&b, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"%s\",NAME=\"%s\",", audioGroup, audio.result.Name)
		if language != "" {
			fmt.Fprintf(&b, "LANGUAGE=\"%s\",", attribute(language))
		}
		fmt.Fprintf(&b, "DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"%d\",URI=\"%s\"\n", channels, audio.uri)
	}
	if len(videos) == 0 && audio != nil {
		r := audio.result
		fmt.Fprintf(&b, "#EXT-X-STREAM-INF:BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d,CODECS=\"%s\"\n%s\n",
			r.PeakBitrateBPS, r.AverageBitrateBPS, r.Codecs, audio.uri)
	}
	for _, v := range videos {
		r := v.result
		peak, average, codecs, group := r.PeakBitrateBPS, r.AverageBitrateBPS, r.Codecs, ""
		if audio != nil {
			peak += audio.result.PeakBitrateBPS
			average += audio.result.AverageBitrateBPS
			codecs += "," + audio.result.Codecs
			group = fmt.Sprintf(",AUDIO=\"%s\"", audioGroup)
		}
		fmt.Fprintf(&b, "#EXT-X-STREAM-INF:BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d,RESOLUTION=%dx%d,FRAME-RATE=%.3f,CODECS=\"%s\"%s\n%s\n",
			peak, average, r.Width, r.Height, r.FrameRate.Float(), codecs, group, v.uri)
	}

	return []byte(b.String())
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

// targetSeconds is the target duration of segments: none, rounded, is above it.
func targetSeconds(segments []segment) int {
	target := 1
	for _, s := range segments {
		target = max(target, int(math.Round(s.duration.Seconds())))
	}

	return target
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
