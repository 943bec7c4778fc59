package ffmpeg

import (
	"strconv"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// protocols are those that FFmpeg may read by: those of the loopback URL. A
// playlist that refers to a file, or to another protocol, gets nothing.
const protocols = "http,tcp"

// formats are the demuxers that may open a source. What is not here can't
// lead FFmpeg elsewhere: playlists (hls, dash, concat, imf), scripts, image
// sequences and scenes (svg) are not.
const formats = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,wav,w64,mp3,aac,ac3,eac3,flac,gif,asf,mxf,aiff,caf,amr,dv,ivf"

// inputArgs are the arguments before -i of a program that reads a source.
func inputArgs(limits *tcoderv1.InputLimits) []string {
	args := []string{"-protocol_whitelist", protocols, "-format_whitelist", formats}
	if n := limits.GetMaxPixels(); n > 0 {
		args = append(args, "-max_pixels", strconv.FormatUint(n, 10))
	}

	return args
}
