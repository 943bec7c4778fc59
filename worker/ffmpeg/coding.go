package ffmpeg

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/Eyevinn/mp4ff/mp4"
)

// coding is how a track is encoded.
type coding struct {
	codecs  string // of RFC 6381
	codec   string // FFmpeg's name
	profile string // FFmpeg's name, empty if it has none
	level   string // as people write it, empty for sound
}

// levelOf writes a level of which one is so many units.
func levelOf(value, unit int) string {
	return strconv.FormatFloat(float64(value)/float64(unit), 'f', 1, 64)
}

// videoCoding tells what a video sample entry holds; zero if unknown.
func videoCoding(entry *mp4.VisualSampleEntryBox) coding {
	switch {
	case entry.AvcC != nil:
		record := entry.AvcC

		return coding{
			codecs: fmt.Sprintf("%s.%02x%02x%02x", entry.Type(), record.AVCProfileIndication, record.ProfileCompatibility, record.AVCLevelIndication),
			codec:  "h264", profile: h264Profile(record.AVCProfileIndication, record.ProfileCompatibility), level: levelOf(int(record.AVCLevelIndication), 10),
		}
	case entry.HvcC != nil:
		profiles := map[byte]string{1: "Main", 2: "Main 10", 3: "Main Still Picture", 4: "Rext"}

		return coding{
			codecs: hevcCodecs(entry), codec: "hevc", profile: profiles[entry.HvcC.GeneralProfileIDC], level: levelOf(int(entry.HvcC.GeneralLevelIDC), 30),
		}
	case entry.Av1C != nil:
		return av1Coding(entry)
	default:
		return coding{}
	}
}

// h264Profile is FFmpeg's name of what an avcC box says.
func h264Profile(profile, compatibility byte) string {
	const (
		constraint1  = 0x40
		constraint3  = 0x10
		baseline     = 66
		intraMarking = " Intra"
	)

	name := map[byte]string{
		baseline: "Baseline", 77: "Main", 88: "Extended", 100: "High", 110: "High 10", 122: "High 4:2:2", 244: "High 4:4:4 Predictive",
	}[profile]

	switch {
	case profile == baseline && compatibility&constraint1 != 0:
		return "Constrained Baseline"
	case (profile == 110 || profile == 122) && compatibility&constraint3 != 0:
		return name + intraMarking
	default:
		return name
	}
}

func av1Coding(entry *mp4.VisualSampleEntryBox) coding {
	const mainTier, highTier = "M", "H"

	record := entry.Av1C

	tier, depth := mainTier, 8
	if record.SeqTier0 == 1 {
		tier = highTier
	}

	if record.HighBitdepth == 1 {
		depth = 10
		if record.TwelveBit == 1 {
			depth = 12
		}
	}

	// Levels count in quarters from 2.0.
	level := int(record.SeqLevelIdx0)

	return coding{
		codecs: fmt.Sprintf("%s.%d.%02d%s.%02d", entry.Type(), record.SeqProfile, level, tier, depth),
		codec:  "av1", profile: map[byte]string{0: "Main", 1: "High", 2: "Professional"}[record.SeqProfile],
		level: fmt.Sprintf("%d.%d", 2+level/4, level%4),
	}
}

// hevcCodecs follows ISO/IEC 14496-15 E.3.
func hevcCodecs(entry *mp4.VisualSampleEntryBox) string {
	record := entry.HvcC
	space := []string{"", "A", "B", "C"}[record.GeneralProfileSpace&3]
	tier := "L"

	if record.GeneralTierFlag {
		tier = "H"
	}

	name := fmt.Sprintf("%s.%s%d.%X.%s%d", entry.Type(), space, record.GeneralProfileIDC,
		bits.Reverse32(record.GeneralProfileCompatibilityFlags), tier, record.GeneralLevelIDC)

	// Six bytes of constraints, the zeros at their end left out.
	constraints := fmt.Sprintf("%012X", record.GeneralConstraintIndicatorFlags)
	for len(constraints) > 0 && strings.HasSuffix(constraints, "00") {
		constraints = constraints[:len(constraints)-2]
	}

	var rest strings.Builder
	for ; len(constraints) > 0; constraints = constraints[2:] {
		rest.WriteString("." + strings.TrimPrefix(constraints[:2], "0"))
	}

	return name + rest.String()
}

// audioCoding tells what an audio sample entry holds; zero if unknown.
func audioCoding(entry *mp4.AudioSampleEntryBox) coding {
	if entry.Esds == nil || entry.Esds.DecConfigDescriptor == nil {
		return coding{}
	}

	config := entry.Esds.DecConfigDescriptor

	const (
		aac, mp3, mp3LowRates = 0x40, 0x6b, 0x69
		escape                = 31 // a longer object type follows
	)

	if config.ObjectType != aac {
		names := map[byte]string{mp3: "mp3", mp3LowRates: "mp3", 0xa5: "ac3", 0xa6: "eac3", 0xa9: "dts"}

		return coding{codecs: fmt.Sprintf("%s.%02x", entry.Type(), config.ObjectType), codec: names[config.ObjectType]}
	}

	if config.DecSpecificInfo == nil || len(config.DecSpecificInfo.DecConfig) < 2 {
		return coding{}
	}

	data := config.DecSpecificInfo.DecConfig

	object := int(data[0] >> 3)
	if object == escape {
		object = 32 + int(data[0]&7)<<3 + int(data[1]>>5)
	}

	return coding{
		codecs: fmt.Sprintf("%s.%02x.%d", entry.Type(), config.ObjectType, object),
		codec:  "aac", profile: map[int]string{1: "Main", 2: "LC", 3: "SSR", 4: "LTP", 5: "HE-AAC", 29: "HE-AACv2"}[object],
	}
}
