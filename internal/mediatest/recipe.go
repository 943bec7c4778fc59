package mediatest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
)

// ID names a clip.
type ID string

// The well-formed clips. All but the FlashBeeps show the film; unless said otherwise they are 1280x720 at 24 frames per
// second with 48 kHz stereo AAC and last 3 s.
const (
	// Film is the committed cut, ready for the web as it is: 7 s, H.264 High 4:2:0 with a keyframe every 2 s, moov first.
	Film ID = "film"
	// Rotated is stored 1280x720 with a display matrix that turns it by 90 degrees: it is shown 720x1280.
	Rotated ID = "rotated"
	// Portrait is 720x1280, 2 s.
	Portrait ID = "portrait"
	// VariableRate drops 9 of every 24 frames, so its frames are 1/24 s to 10/24 s apart; 6 s, 640x360.
	VariableRate ID = "variable-rate"
	// HighRate has 60000/1001 frames per second; 640x360.
	HighRate ID = "high-rate"
	// NoAudio has no audio stream.
	NoAudio ID = "no-audio"
	// AudioOnly is AAC in MP4 and nothing else, 7 s.
	AudioOnly ID = "audio-only"
	// Cover is an MP3 with a cover picture, which FFmpeg shows as a video stream; 5 s.
	Cover ID = "cover"
	// OddSize is VP9 in WebM, 853x479, no audio; 2 s.
	OddSize ID = "odd-size"
	// VP9Opus is VP9 and Opus in WebM, 640x360; 2 s.
	VP9Opus ID = "vp9-opus"
	// ManyStreams is Matroska with one video, two audio streams (eng, default, and deu) and one subtitle stream (eng).
	ManyStreams ID = "many-streams"
	// Surround has 5.1 AAC.
	Surround ID = "surround"
	// Deep444 is 10-bit 4:4:4 H.264, which no browser plays; 1 s.
	Deep444 ID = "deep-444"
	// HDR10 is 10-bit HEVC with BT.2020 primaries and the PQ curve, 640x360, no audio; 1 s.
	HDR10 ID = "hdr10"
	// ProRes is 10-bit 4:2:2 ProRes with PCM and a timecode stream in QuickTime; 1 s.
	ProRes ID = "prores"
	// Interlaced is MPEG-2 in a transport stream, 720x576, 25 frames of two fields per second, pixels 16:15, MP2 audio; 3 s.
	Interlaced ID = "interlaced"
	// OffsetStart is a transport stream whose first timestamp is about 1000 s; 6 s.
	OffsetStart ID = "offset-start"
	// TailMoov is Film with its index at the end of the file.
	TailMoov ID = "tail-moov"
	// OneFrame is one frame of video, no audio.
	OneFrame ID = "one-frame"
	// GIF is an animation, 320x180 at 10 frames per second; 2 s.
	GIF ID = "gif"
	// FlashBeep is 6 s, 640x360: at each whole second from the first on, one white frame and a tone of 0.1 s start
	// together. See Beats.
	FlashBeep ID = "flash-beep"
	// LongFlashBeep is FlashBeep for 36 s, 426x240: long enough to be made in chunks.
	LongFlashBeep ID = "long-flash-beep"
)

// The broken ones. Each is called .mp4.
const (
	// TruncatedTail is the first half of Film: it opens, and its media ends early.
	TruncatedTail ID = "truncated-tail"
	// TruncatedIndex is the first half of TailMoov: its index is missing, so it doesn't open.
	TruncatedIndex ID = "truncated-index"
	// Corrupt is Film with three stretches of noise in its media.
	Corrupt ID = "corrupt"
	// Empty has zero bytes.
	Empty ID = "empty"
	// Text is a line of English.
	Text ID = "text"
)

// recipe says how a clip is made: by FFmpeg with args, or as bytes.
type recipe struct {
	ext  string
	from []ID
	// args are FFmpeg's arguments up to the output. {0} stands for the first of from, {1} for the second.
	args []string
	// bytes makes the file without FFmpeg; version changes whenever it does.
	bytes   func(inputs []string) ([]byte, error)
	version string
}

// x264 is good enough for a source, and quick.
const x264 = " -c:v libx264 -preset superfast -crf 23 -pix_fmt yuv420p "

func recipes() map[ID]recipe {
	film := func(ext, args string) recipe {
		return recipe{ext: ext, from: []ID{Film}, args: split(args)}
	}

	return map[ID]recipe{
		Film: {ext: ".mp4", version: "1", bytes: func([]string) ([]byte, error) { return sintel, nil }},

		Rotated:      film(".mp4", "-t 3 -i {0} -c copy -metadata:s:v rotate=90"),
		Portrait:     film(".mp4", "-t 2 -i {0} -vf crop=404:718,scale=720:1280,setsar=1"+x264+"-c:a copy"),
		VariableRate: film(".mp4", "-t 6 -i {0} -vf scale=640:360,select='not(between(mod(n,24),5,13))' -fps_mode vfr"+x264+"-c:a copy"),
		HighRate:     film(".mp4", "-t 3 -i {0} -vf scale=640:360,fps=60000/1001"+x264+"-c:a copy"),
		NoAudio:      film(".mp4", "-t 3 -i {0} -an -c copy"),
		AudioOnly:    film(".m4a", "-i {0} -vn -c copy"),
		Cover:        {ext: ".mp3", from: []ID{Film, OneFrame}, args: split("-t 5 -i {0} -i {1} -map 0:a -map 1:v -c:a libmp3lame -c:v mjpeg -disposition:v attached_pic")},
		OddSize:      film(".webm", "-t 2 -i {0} -an -vf format=yuv444p,crop=853:479:exact=1,format=yuv420p -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 1M"),
		VP9Opus:      film(".webm", "-t 2 -i {0} -vf scale=640:360 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 600k -c:a libopus -b:a 96k"),
		ManyStreams: {ext: ".mkv", from: []ID{Film, subtitles}, args: split("-t 3 -i {0} -i {1} -map 0:v -map 0:a -map 0:a -map 1 -c:v copy -c:a libopus -c:s srt" +
			" -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu -metadata:s:s:0 language=eng -disposition:a:0 default -disposition:a:1 0")},
		Surround:      film(".mp4", "-t 3 -i {0} -c:v copy -af pan=5.1|FL=FL|FR=FR|FC=0.5*FL+0.5*FR|LFE=0.1*FL|BL=FL|BR=FR -c:a aac -b:a 384k"),
		Deep444:       film(".mp4", "-t 1 -i {0} -c:v libx264 -preset ultrafast -pix_fmt yuv444p10le -c:a copy"),
		HDR10:         film(".mp4", "-t 1 -i {0} -an -vf scale=640:360,zscale=tin=bt709:min=bt709:pin=bt709:rin=tv:t=smpte2084:m=bt2020nc:p=bt2020:npl=203,format=yuv420p10le -c:v libx265 -preset ultrafast -x265-params log-level=error:hdr10=1:repeat-headers=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):max-cll=1000,400 -tag:v hvc1"),
		ProRes:        film(".mov", "-t 1 -i {0} -c:v prores_ks -profile:v 3 -pix_fmt yuv422p10le -c:a pcm_s16le -timecode 01:00:00:00"),
		Interlaced:    film(".ts", "-t 3 -i {0} -vf fps=50,scale=720:576,tinterlace=interleave_top,setsar=16/15,setfield=tff -c:v mpeg2video -flags +ilme+ildct -b:v 4M -c:a mp2"),
		OffsetStart:   film(".ts", "-t 6 -i {0} -c copy -output_ts_offset 1000"),
		TailMoov:      film(".mp4", "-i {0} -c copy"),
		OneFrame:      film(".mp4", "-ss 1 -i {0} -an -frames:v 1"+x264),
		GIF:           film(".gif", "-t 2 -i {0} -an -vf fps=10,scale=320:180"),
		FlashBeep:     {ext: ".mp4", args: flashBeep("640x360", "6")},
		LongFlashBeep: {ext: ".mp4", args: flashBeep("426x240", "36")},

		TruncatedTail:  {ext: ".mp4", from: []ID{Film}, version: "1", bytes: firstHalf},
		TruncatedIndex: {ext: ".mp4", from: []ID{TailMoov}, version: "1", bytes: firstHalf},
		Corrupt:        {ext: ".mp4", from: []ID{Film}, version: "1", bytes: corrupted},
		Empty:          {ext: ".mp4", version: "1", bytes: text("")},
		Text:           {ext: ".mp4", version: "1", bytes: text("This is a line of English, whatever its name says.\n")},
	}
}

// subtitles is an ingredient of ManyStreams.
const subtitles ID = "subtitles"

// split cuts FFmpeg arguments at spaces; none of them contains one, and nothing here passes a shell, so the quotes
// that protect commas inside a filter stay.
func split(args string) []string { return strings.Fields(args) }

func text(content string) func([]string) ([]byte, error) {
	return func([]string) ([]byte, error) { return []byte(content), nil }
}

func firstHalf(inputs []string) ([]byte, error) {
	content, err := os.ReadFile(inputs[0])
	if err != nil {
		return nil, fmt.Errorf("cut in half: %w", err)
	}

	return content[:len(content)/2], nil
}

var errNoMedia = errors.New("the clip has no mdat box")

func corrupted(inputs []string) ([]byte, error) {
	content, err := os.ReadFile(inputs[0])
	if err != nil {
		return nil, fmt.Errorf("corrupt: %w", err)
	}

	media := bytes.Index(content, []byte("mdat"))
	if media < 0 {
		return nil, errNoMedia
	}

	const stretch = 3000

	noise := rand.New(rand.NewPCG(1, 2))
	for _, percent := range []int{30, 50, 70} {
		start := media + (len(content)-media)*percent/100
		for i := range stretch {
			content[start+i] = byte(noise.Uint32())
		}
	}

	return content, nil
}

// flashBeep draws a clip of a size that lasts some seconds; see FlashBeep.
func flashBeep(size, seconds string) []string {
	return split("-f lavfi -i testsrc2=s=" + size + ":r=24,lutyuv=y=val/4,drawbox=c=white:t=fill:enable='gte(n,24)*not(mod(n,24))'" +
		" -f lavfi -i aevalsrc='if(gte(t,1)*lt(mod(t,1),0.1),0.5*sin(2*PI*1000*t),0)':s=48000:c=stereo -t " + seconds + x264 + "-c:a aac -b:a 96k")
}
