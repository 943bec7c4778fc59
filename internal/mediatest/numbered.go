package mediatest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// NumberedLength is how long the clips of Numbered last: long enough to be made in chunks.
const NumberedLength = 32 * time.Second

// Numbered returns a long clip of the same kind as Clip's, in which each picture carries its number and each second
// begins with a flash and a tone: see Watch. It is 640x360 where its kind doesn't say otherwise. OneFrame, Empty and
// Text are Clip's own.
func Numbered(t testing.TB, id ID) string {
	t.Helper()

	kinds := numbered()
	made, known := kinds[id]

	if !known {
		return Clip(t, id)
	}

	path, err := clip(t.Context(), cacheDir(t), "numbered-"+string(id), made)
	require.NoError(t, err)

	return path
}

// The ingredients of numbered clips: what most are made of, the same with its index at the end, and one that lies on
// its side.
const (
	numberedBase ID = "numbered"
	numberedTail ID = "numbered-tail"
	numberedSide ID = "numbered-side"
)

// ingredients are the recipes of the clips that numbered ones are made of.
func ingredients() map[ID]recipe {
	// A stream that players can take as it is.
	const fitting = x264 + "-maxrate 700k -bufsize 700k -g 48 -sc_threshold 0 " + numberedSound + " -movflags +faststart"

	made := func(size, turn string) recipe {
		return recipe{ext: ".mp4", from: []ID{Film}, args: split(numberedInput + " -vf " + burnIn("24", 1, size) + turn + fitting)}
	}

	return map[ID]recipe{
		numberedBase: made("640:360", ""),
		numberedSide: made("360:640", ",transpose=1"),
		numberedTail: {ext: ".mp4", from: []ID{numberedBase}, args: split("-i {0} -c copy")},
		subtitles:    {ext: ".srt", version: "1", bytes: text("1\n00:00:00,000 --> 00:00:02,000\nThe hunter is near.\n")},
	}
}

const (
	numberedInput = "-stream_loop -1 -i {0} -f lavfi -i aevalsrc='if(gte(t,1)*lt(mod(t,1),0.1),0.5*sin(2*PI*1000*t),0)':s=48000:c=stereo -t 32 -map 0:v -map 1:a"
	numberedSound = "-c:a aac -b:a 96k"
)

func numbered() map[ID]recipe {
	base := func(ext, args string) recipe {
		return recipe{ext: ext, from: []ID{numberedBase}, args: split(args)}
	}
	film := func(ext, rate string, step int, size, args string) recipe {
		return recipe{ext: ext, from: []ID{Film}, args: split(numberedInput + " -vf " + burnIn(rate, step, size) + args)}
	}
	short := recipes()

	return map[ID]recipe{
		Film: base(".mp4", "-i {0} -c copy -movflags +faststart"),

		Rotated:      {ext: ".mp4", from: []ID{numberedSide}, args: split("-i {0} -c copy -metadata:s:v rotate=90")},
		Portrait:     film(".mp4", "24", 1, "360:640", x264+numberedSound),
		VariableRate: base(".mp4", "-i {0} -vf select='not(between(mod(n,24),5,13))' -fps_mode vfr"+x264+"-c:a copy"),
		HighRate:     film(".mp4", "60000/1001", 1, "640:360", x264+numberedSound),
		NoAudio:      base(".mp4", "-i {0} -an -c copy"),
		AudioOnly:    base(".m4a", "-i {0} -vn -c copy"),
		Cover:        {ext: ".mp3", from: []ID{numberedBase, OneFrame}, args: short[Cover].args[2:]},
		OddSize:      base(".webm", "-i {0} -an -vf format=yuv444p,crop=639:359:exact=1,format=yuv420p -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M"),
		VP9Opus:      base(".webm", "-i {0} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M -c:a libopus -b:a 96k"),
		ManyStreams:  {ext: ".mkv", from: []ID{numberedBase, subtitles}, args: short[ManyStreams].args[2:]},
		Surround:     base(".mp4", strings.Join(short[Surround].args[2:], " ")),
		Deep444:      base(".mp4", "-i {0} -c:v libx264 -preset ultrafast -crf 20 -pix_fmt yuv444p10le -c:a copy"),
		HDR10:        base(".mp4", strings.ReplaceAll(strings.Join(short[HDR10].args[2:], " "), "scale=640:360,", "")),
		ProRes:       base(".mov", strings.Join(short[ProRes].args[2:], " ")),
		Interlaced: film(".ts", "50", 2, "720:576",
			",tinterlace=interleave_top,setsar=16/15,setfield=tff -c:v mpeg2video -flags +ilme+ildct -b:v 4M -c:a mp2"),
		OffsetStart: base(".ts", "-i {0} -c copy -output_ts_offset 1000"),
		TailMoov:    base(".mp4", "-i {0} -c copy"),
		GIF:         base(".gif", "-i {0} -an -vf fps=10,scale=320:180"),

		TruncatedTail:  {ext: ".mp4", from: []ID{numberedBase}, version: "1", bytes: firstHalf},
		TruncatedIndex: {ext: ".mp4", from: []ID{numberedTail}, version: "1", bytes: firstHalf},
		Corrupt:        {ext: ".mp4", from: []ID{numberedBase}, version: "1", bytes: corrupted},
	}
}

// A burnt-in number is a row of cells at the top of the picture: a white and a black one to compare with, and a white
// one for each bit that is set, the lowest first.
const (
	numberBits = 12
	cells      = numberBits + 2
)

// burnIn returns the filters that make a film of a cadence and a size dark, and put the flashes and the numbers into
// it; step pictures have the same number.
func burnIn(rate string, step int, size string) string {
	filters := []string{
		"setpts=N/24/TB", "fps=" + rate, "scale=" + size, "setsar=1", "format=yuv420p", "lutyuv=y=16+(val-16)*0.45",
		fmt.Sprintf("drawbox=c=white:t=fill:enable='gte(t,0.9)*lt(mod(t+0.001,1),%d/(%s))'", step, rate),
		"drawbox=w=iw:h=ih/8:c=black:t=fill",
		"drawbox=w=iw/" + strconv.Itoa(cells) + ":h=ih/8:c=white:t=fill",
	}

	for bit := range numberBits {
		filters = append(filters, fmt.Sprintf("drawbox=x=%d*iw/%d:w=iw/%d:h=ih/8:c=white:t=fill:enable='mod(floor(n/%d),2)'",
			bit+2, cells, cells, step<<bit))
	}

	return strings.Join(filters, ",")
}
