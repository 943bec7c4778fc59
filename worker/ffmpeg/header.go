package ffmpeg

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// maxHeader bounds ffprobe's description of a source: a thousand streams.
const maxHeader = 2 << 20

// headerEntries are what ffprobe is asked for: nothing more, because titles
// and other tags are as long as the source wants.
const headerEntries = "format=format_name,duration,start_time,bit_rate" +
	":stream=index,codec_type,codec_name,profile,level,width,height,has_b_frames,sample_aspect_ratio,pix_fmt" +
	",color_space,color_transfer,color_primaries,field_order,r_frame_rate,avg_frame_rate,start_time,duration" +
	",bit_rate,nb_frames,sample_rate,channels" +
	":stream_disposition=default,attached_pic,timed_thumbnails:stream_tags=language,DURATION:stream_side_data=rotation"

// header is what ffprobe says of a source.
type header struct {
	Format struct {
		Name     string `json:"format_name"`
		Duration string `json:"duration"`
		Start    string `json:"start_time"`
		BitRate  string `json:"bit_rate"`
	} `json:"format"`
	Streams []headerStream `json:"streams"`
	glance
	// estimated is true if the duration is computed of the bitrate.
	estimated bool
}

type headerStream struct {
	Index          uint32 `json:"index"`
	Type           string `json:"codec_type"`
	Codec          string `json:"codec_name"`
	Profile        string `json:"profile"`
	Level          int32  `json:"level"`
	Width          uint32 `json:"width"`
	Height         uint32 `json:"height"`
	BFrames        int    `json:"has_b_frames"`
	Aspect         string `json:"sample_aspect_ratio"`
	PixelFormat    string `json:"pix_fmt"`
	ColorSpace     string `json:"color_space"`
	ColorTransfer  string `json:"color_transfer"`
	ColorPrimaries string `json:"color_primaries"`
	FieldOrder     string `json:"field_order"`
	NominalRate    string `json:"r_frame_rate"`
	AverageRate    string `json:"avg_frame_rate"`
	Start          string `json:"start_time"`
	Duration       string `json:"duration"`
	BitRate        string `json:"bit_rate"`
	Frames         string `json:"nb_frames"`
	SampleRate     string `json:"sample_rate"`
	Channels       uint32 `json:"channels"`
	Disposition    struct {
		Default    int `json:"default"`
		Attached   int `json:"attached_pic"`
		Thumbnails int `json:"timed_thumbnails"`
	} `json:"disposition"`
	Tags struct {
		Language string `json:"language"`
		Duration string `json:"DURATION"`
	} `json:"tags"`
	SideData []struct {
		Rotation *float64 `json:"rotation"`
	} `json:"side_data_list"`
}

// readHeader asks ffprobe what the source is, and where the index of an MP4
// tells where its edges are, to decode them: a third less processor time than by
// programs of their own. If that fails, or takes long, it asks again without.
func (p *prober) readHeader(ctx context.Context) (*header, error) {
	if from, ok := p.index.edges(); ok {
		found, err := p.describe(ctx, p.asideLimit(), from.args()...)
		if err == nil {
			found.asked = from
		}

		if err == nil || ctx.Err() != nil {
			return found, err
		}
	}

	return p.describe(ctx, p.req.TimeLimit, "-show_entries", headerEntries)
}

// describe asks ffprobe for what it is to show of the source.
func (p *prober) describe(ctx context.Context, limit time.Duration, show ...string) (*header, error) {
	output := &capture{limit: maxHeader}
	args := append([]string{"-hide_banner", "-v", "level+warning"}, inputArgs(p.req.Limits)...)
	run := p.process(p.tools.FFprobe, append(append(args, show...), "-of", "json=compact=1", p.req.Source.URL)...)
	run.timeLimit = min(run.timeLimit, limit)
	run.stdout = output

	end, err := run.run(ctx)

	switch {
	case err != nil:
		return nil, endFault(err, end.log)
	case end.code != 0:
		fault := exitFault(end, func(log string) *Fault { return p.unreadable(ctx, log) })
		if strings.Contains(end.log, maxPixelsMark) {
			fault.Message = fmt.Sprintf("the source's picture has more pixels than the limit, %d", p.req.Limits.GetMaxPixels())
		}

		return nil, fault
	case output.overflow:
		return nil, inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_LIMIT_EXCEEDED, end.log,
			fmt.Sprintf("the source has far too many streams, the limit is %d", p.req.Limits.GetMaxStreams()))
	}

	found := header{estimated: strings.Contains(end.log, "Estimating duration from bitrate")}
	found.complained = len(end.log) >= maxLog || slices.ContainsFunc(strings.Split(end.log, "\n"), isError)

	if err := json.Unmarshal(output.data.Bytes(), &found); err != nil {
		return nil, unknownFault(tcoderv1.ErrorReason_ERROR_REASON_INTERNAL, err.Error()+"\n"+end.log, "the worker doesn't understand its ffprobe")
	}

	if len(found.Streams) == 0 || found.Format.Name == "" {
		return nil, p.unreadable(ctx, end.log)
	}

	return &found, nil
}

func notMedia(log string) *Fault {
	return inputFault(tcoderv1.ErrorReason_ERROR_REASON_INPUT_NOT_MEDIA, log, "the source is not a media file that can be read")
}

// result is the header in the words of the API. Pictures that are attached to
// a sound are left out, as are codecs that FFmpeg doesn't know.
func (h *header) result(size int64) *tcoderv1.ProbeResult {
	result := &tcoderv1.ProbeResult{
		Format:     h.Format.Name,
		SizeBytes:  uint64(max(0, size)),
		BitrateBps: number(h.Format.BitRate),
	}
	if start, ok := parseSeconds(h.Format.Start); ok {
		result.StartTime = durationpb.New(start)
	}

	if d, ok := parseSeconds(h.Format.Duration); ok && d > 0 {
		result.Duration = durationpb.New(d)
	}

	for _, s := range h.Streams {
		if s.Disposition.Attached != 0 || s.Disposition.Thumbnails != 0 {
			continue
		}

		info := s.info()
		if s.AverageRate == "1000/1" && strings.Contains(h.Format.Name, "matroska") {
			info.FrameRate = nil // the ticks of its clock, for want of anything better
		}

		result.Streams = append(result.Streams, info)
	}

	return result
}

func (s headerStream) info() *tcoderv1.StreamInfo {
	info := &tcoderv1.StreamInfo{
		Index: s.Index, Kind: s.kind(), Codec: s.Codec, Profile: known(s.Profile), Level: max(0, s.Level),
		Width: s.Width, Height: s.Height, RotationDegrees: s.rotation(), SampleAspectRatio: aspect(s.Aspect),
		FrameRate: rational(s.AverageRate, "/"), NominalFrameRate: rational(s.NominalRate, "/"),
		PixelFormat: known(s.PixelFormat), ColorTransfer: known(s.ColorTransfer), ColorPrimaries: known(s.ColorPrimaries),
		ColorSpace: known(s.ColorSpace), FieldOrder: known(s.FieldOrder), HasBFrames: s.BFrames > 0,
		SampleRateHz: uint32(min(number(s.SampleRate), math.MaxUint32)), Channels: s.Channels,
		BitrateBps: number(s.BitRate), FrameCount: number(s.Frames),
		Language: language(s.Tags.Language), Default: s.Disposition.Default != 0,
	}

	if info.GetKind() != tcoderv1.StreamKind_STREAM_KIND_VIDEO {
		info.FrameRate, info.NominalFrameRate = nil, nil
	}

	start, _ := parseSeconds(s.Start)
	info.StartTime = durationpb.New(start)

	if d, ok := parseSeconds(s.Duration); ok && d > 0 {
		info.Duration = durationpb.New(d)
	}

	return info
}

// kind is the stream's kind, unspecified for what can't be decoded.
func (s headerStream) kind() tcoderv1.StreamKind {
	if s.Codec == "" || s.Codec == "none" || s.Codec == "unknown" {
		return tcoderv1.StreamKind_STREAM_KIND_UNSPECIFIED
	}

	switch s.Type {
	case "video":
		return tcoderv1.StreamKind_STREAM_KIND_VIDEO
	case "audio":
		return tcoderv1.StreamKind_STREAM_KIND_AUDIO
	case "subtitle":
		return tcoderv1.StreamKind_STREAM_KIND_SUBTITLE
	default:
		return tcoderv1.StreamKind_STREAM_KIND_UNSPECIFIED
	}
}

// rotation is what FFmpeg turns the picture by, clockwise. A display matrix
// counts the other way; one that is no quarter turn leaves the size as it is.
func (s headerStream) rotation() uint32 {
	const full, quarter, near = 360, 90, 1

	for _, data := range s.SideData {
		if data.Rotation == nil || math.IsNaN(*data.Rotation) || math.IsInf(*data.Rotation, 0) {
			continue
		}

		clockwise := math.Mod(full-math.Mod(*data.Rotation, full), full)
		if turns := math.Round(clockwise / quarter); math.Abs(clockwise-turns*quarter) < near {
			return uint32(turns) % 4 * quarter
		}
	}

	return 0
}

// known is an FFmpeg name, empty where FFmpeg has none.
func known(name string) string {
	if name == "unknown" || name == "reserved" || name == "N/A" {
		return ""
	}

	return name
}

// aspect is the shape of pixels, unset for square ones and for those that are
// too long to be true.
func aspect(text string) *tcoderv1.Rational {
	const extreme = 8

	r := rational(text, ":")
	if r == nil || r.GetNum() == r.GetDen() || r.GetNum() > extreme*r.GetDen() || r.GetDen() > extreme*r.GetNum() {
		return nil
	}

	return r
}

// rational parses a positive fraction; nil if it is none.
func rational(text, separator string) *tcoderv1.Rational {
	a, b, _ := strings.Cut(text, separator)

	const bits = 31

	num, errNum := strconv.ParseUint(a, 10, bits)
	den, errDen := strconv.ParseUint(b, 10, bits)

	if errNum != nil || errDen != nil {
		return nil
	}

	return reduced(num, den)
}

// number parses a count; 0 if it is none.
func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0
	}

	return n
}

// parseSeconds parses seconds as FFmpeg prints them, if they can be true.
func parseSeconds(text string) (time.Duration, bool) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > maxDuration.Seconds() {
		return 0, false
	}

	return time.Duration(math.Round(f*1e6)) * time.Microsecond, true
}

// clock parses Matroska's hh:mm:ss.nnnnnnnnn, if it can be true.
func clock(text string) (time.Duration, bool) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return 0, false
	}

	hours, errHours := strconv.ParseUint(parts[0], 10, 16)
	minutes, errMinutes := strconv.ParseUint(parts[1], 10, 8)
	rest, ok := parseSeconds(parts[2])

	if errHours != nil || errMinutes != nil || !ok {
		return 0, false
	}

	d := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute + rest

	return d, 0 <= d && d <= maxDuration
}

var languageTag = regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}$`)

// language is a language tag, empty for what is none.
func language(tag string) string {
	if tag == "und" || !languageTag.MatchString(tag) {
		return ""
	}

	return tag
}
