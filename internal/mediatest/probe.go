package mediatest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Info is what ffprobe finds in a media file or playlist after decoding all of it.
type Info struct {
	// Format is ffprobe's list of names, like "mov,mp4,m4a,3gp,3g2,mj2".
	Format    string
	Start     time.Duration
	Duration  time.Duration
	SizeBytes int64
	// Video leaves attached pictures out.
	Video     []Stream
	Audio     []Stream
	Subtitles []Stream
	// Other holds the rest: timecode and other data, attached pictures.
	Other []Stream
}

// Stream is one stream of a file. What doesn't apply to its kind is zero.
type Stream struct {
	Index    int
	Kind     string
	Codec    string
	Profile  string
	Level    int
	Language string
	Default  bool
	Start    time.Duration
	// Duration is zero where the container doesn't say, as in playlists, Matroska and GIF: see Spans.
	Duration   time.Duration
	BitrateBPS int64
	// Frames counts the frames that were really decoded.
	Frames int

	Width, Height     int
	PixelFormat       string
	SampleAspectRatio string
	FieldOrder        string
	ColorTransfer     string
	// RotationDegrees is the display matrix as FFmpeg prints it, counter-clockwise.
	RotationDegrees int
	// FrameRate is the lowest rate that can show every timestamp; AverageRate is frames by duration.
	FrameRate, AverageRate Rational

	SampleRateHz int
	Channels     int
}

// Rational is a fraction as FFmpeg prints it.
type Rational struct{ Num, Den int }

// Float returns the value; 0 for 0/0, which FFmpeg prints for "unknown".
func (r Rational) Float() float64 {
	if r.Den == 0 {
		return 0
	}

	return float64(r.Num) / float64(r.Den)
}

func (r Rational) String() string { return fmt.Sprintf("%d/%d", r.Num, r.Den) }

// Probe decodes the file or playlist (.m3u8; a path or a URL) and reports what is in it. It fails the test if ffprobe
// can't open it; errors inside the media are for DecodeClean to find.
func Probe(t testing.TB, path string) Info {
	t.Helper()

	var raw rawInfo

	output := ffprobe(t, path, "-count_frames", "-show_format", "-show_streams", "-of", "json")
	require.NoError(t, json.Unmarshal(output, &raw))

	return raw.info()
}

// ffprobe runs ffprobe on the input with the network and file access that playlists need.
func ffprobe(t testing.TB, path string, args ...string) []byte {
	t.Helper()

	args = append([]string{"-v", "error"}, args...)
	args = append(args, input(path)...)

	return run(t, "ffprobe", args...)
}

// input returns the arguments that open path.
func input(path string) []string {
	if strings.HasSuffix(strings.SplitN(path, "?", 2)[0], ".m3u8") {
		return []string{"-protocol_whitelist", "file,http,tcp", "-allowed_extensions", "ALL", "-i", path}
	}

	return []string{"-protocol_whitelist", "file,http,tcp", "-i", path}
}

// run returns the standard output of a program that must succeed.
func run(t testing.TB, name string, args ...string) []byte {
	t.Helper()

	var stdout, stderr bytes.Buffer

	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr

	require.NoError(t, cmd.Run(), "%s %s\n%s", name, strings.Join(args, " "), &stderr)

	return stdout.Bytes()
}

// rawInfo is ffprobe's JSON.
type rawInfo struct {
	Format struct {
		Name     string  `json:"format_name"` //nolint:tagliatelle // ffprobe's name
		Start    seconds `json:"start_time"`  //nolint:tagliatelle // ffprobe's name
		Duration seconds `json:"duration"`
		Size     int64   `json:"size,string"`
	} `json:"format"`
	Streams []rawStream `json:"streams"`
}

//nolint:tagliatelle // ffprobe's names
type rawStream struct {
	Index       int      `json:"index"`
	Kind        string   `json:"codec_type"`
	Codec       string   `json:"codec_name"`
	Profile     string   `json:"profile"`
	Level       int      `json:"level"`
	Start       seconds  `json:"start_time"`
	Duration    seconds  `json:"duration"`
	Bitrate     int64    `json:"bit_rate,string"`
	Frames      int      `json:"nb_read_frames,string"`
	Width       int      `json:"width"`
	Height      int      `json:"height"`
	PixFmt      string   `json:"pix_fmt"`
	SAR         string   `json:"sample_aspect_ratio"`
	FieldOrder  string   `json:"field_order"`
	Transfer    string   `json:"color_transfer"`
	FrameRate   Rational `json:"r_frame_rate"`
	AverageRate Rational `json:"avg_frame_rate"`
	SampleRate  int      `json:"sample_rate,string"`
	Channels    int      `json:"channels"`
	Disposition struct {
		Default         int `json:"default"`
		AttachedPicture int `json:"attached_pic"`
	} `json:"disposition"`
	Tags struct {
		Language string `json:"language"`
	} `json:"tags"`
	SideData []struct {
		Rotation int `json:"rotation"`
	} `json:"side_data_list"`
}

func (raw rawInfo) info() Info {
	info := Info{
		Format:    raw.Format.Name,
		Start:     time.Duration(raw.Format.Start),
		Duration:  time.Duration(raw.Format.Duration),
		SizeBytes: raw.Format.Size,
	}

	for _, stream := range raw.Streams {
		switch {
		case stream.Kind == "video" && stream.Disposition.AttachedPicture == 0:
			info.Video = append(info.Video, stream.stream())
		case stream.Kind == "audio":
			info.Audio = append(info.Audio, stream.stream())
		case stream.Kind == "subtitle":
			info.Subtitles = append(info.Subtitles, stream.stream())
		default:
			info.Other = append(info.Other, stream.stream())
		}
	}

	return info
}

func (raw rawStream) stream() Stream {
	stream := Stream{
		Index: raw.Index, Kind: raw.Kind, Codec: raw.Codec, Profile: raw.Profile, Level: raw.Level,
		Language: raw.Tags.Language, Default: raw.Disposition.Default == 1,
		Start: time.Duration(raw.Start), Duration: time.Duration(raw.Duration),
		BitrateBPS: raw.Bitrate, Frames: raw.Frames,
		Width: raw.Width, Height: raw.Height, PixelFormat: raw.PixFmt, SampleAspectRatio: raw.SAR,
		FieldOrder: raw.FieldOrder, ColorTransfer: raw.Transfer,
		FrameRate: raw.FrameRate, AverageRate: raw.AverageRate,
		SampleRateHz: raw.SampleRate, Channels: raw.Channels,
	}
	for _, side := range raw.SideData {
		stream.RotationDegrees += side.Rotation
	}

	return stream
}

// seconds is a time as ffprobe prints it: a decimal number in quotes, or N/A.
type seconds time.Duration

// UnmarshalText reads "7.000000"; "N/A" is zero.
func (s *seconds) UnmarshalText(text []byte) error {
	if string(text) == "N/A" {
		return nil
	}

	value, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return fmt.Errorf("time: %w", err)
	}

	*s = seconds(time.Duration(value*1e6+0.5) * time.Microsecond)

	return nil
}

// UnmarshalText reads "24000/1001".
func (r *Rational) UnmarshalText(text []byte) error {
	if _, err := fmt.Sscanf(string(text), "%d/%d", &r.Num, &r.Den); err != nil {
		return fmt.Errorf("fraction %q: %w", text, err)
	}

	return nil
}
