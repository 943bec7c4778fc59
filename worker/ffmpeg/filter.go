package ffmpeg

import (
	"fmt"
	"slices"
	"strings"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// filterGraph makes the pictures of all encoded renditions, [v0] the largest,
// from one decode: each is scaled from the one above. It is empty when
// nothing is encoded. FFmpeg has turned the picture upright before.
//
// The constant cadence is made last. The pictures that fill a hole are then
// all the same one, however long the hole; before the scaling they would be
// copies, which wait in memory for the encoder.
func filterGraph(work *tcoderv1.EncodeWork, zimg bool) string {
	video := work.GetOutput().GetVideo()
	encoded := encodedOf(video)
	if len(encoded) == 0 {
		return ""
	}

	from, source := input(video.GetStreamIndex()), sourceStream(work, video.GetStreamIndex())
	filters := append(chunkPreRoll(work), sourceFilters(video, source, encoded[0])...)
	cadence := fmt.Sprintf("fps=%d/%d", video.GetFrameRate().GetNum(), video.GetFrameRate().GetDen())
	if knownFrames(work) > 0 {
		// Else a last picture of unknown duration would be dropped. One too many
		// doesn't get past the known number.
		cadence += ":eof_action=pass"
	}

	cadence += chunkFilters(work)

	var chains []string

	for i, rendition := range encoded {
		if i > 0 {
			filters = scaleDown(rendition, zimg && source.GetColorSpace() != spaceRGB)
		}

		chain := "[" + from + "]" + strings.Join(filters, ",")
		if i < len(encoded)-1 {
			from = fmt.Sprintf("s%d", i+1)
			chain += fmt.Sprintf(",split=2[c%d][%s];[c%d]%s[v%d]", i, from, i, cadence, i)
		} else {
			chain += fmt.Sprintf(",%s[v%d]", cadence, i)
		}

		chains = append(chains, chain)
	}

	return strings.Join(chains, ";")
}

// encodedOf are the renditions that aren't copied.
func encodedOf(video *tcoderv1.VideoPlan) []*tcoderv1.RenditionPlan {
	return slices.DeleteFunc(slices.Clone(video.GetRenditions()), (*tcoderv1.RenditionPlan).GetCopy)
}

// sourceFilters make the largest rendition's pictures of the source's.
func sourceFilters(video *tcoderv1.VideoPlan, source *tcoderv1.StreamInfo, largest *tcoderv1.RenditionPlan) []string {
	var filters []string

	if video.GetDeinterlace() {
		// Frames that are not marked as interlaced pass as they are.
		filters = append(filters, "bwdif=mode=send_frame:parity=auto:deint=interlaced")
	}

	rgb := isRGB(source.GetPixelFormat())
	if rgb {
		filters = append(filters, scaleTo(largest, ":out_color_matrix=bt709:out_range=tv")...)
	} else {
		filters = append(filters, scaleTo(largest, "")...)
	}

	if video.GetToneMap() {
		filters = append(filters, toneMap(source)...)
	}

	filters = append(filters, "format=yuv420p")
	if rgb {
		filters = append(filters, "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709")
	}

	return filters
}

// scaleTo scales to a rendition's size, with square pixels.
func scaleTo(rendition *tcoderv1.RenditionPlan, options string) []string {
	return []string{
		fmt.Sprintf("scale=%d:%d:flags=bicubic%s", rendition.GetWidth(), rendition.GetHeight(), options),
		"setsar=1",
	}
}

// spaceRGB is what FFmpeg calls the colors of RGB. A source may say so of YUV, too.
const spaceRGB = "gbr"

// scaleDown makes pictures of 4:2:0 and 8 bits smaller. zimg takes a third less
// processor time for it than FFmpeg's own scaler, 1.3 % of a ladder's, for the
// same cubic. Newer FFmpegs' zscale refuses YUV that calls itself RGB.
func scaleDown(rendition *tcoderv1.RenditionPlan, zimg bool) []string {
	if !zimg {
		return scaleTo(rendition, "")
	}

	return []string{
		fmt.Sprintf("zscale=%d:%d:filter=bicubic:param_a=0:param_b=0.6", rendition.GetWidth(), rendition.GetHeight()), "setsar=1",
	}
}

// toneMap brings HDR to BT.709. It is the dearest filter, and so comes after
// the first scaling. What a source leaves unsaid is what HDR10 says.
func toneMap(source *tcoderv1.StreamInfo) []string {
	known := func(value, fallback string, values ...string) string {
		if slices.Contains(values, value) {
			return value
		}

		return fallback
	}

	return []string{
		fmt.Sprintf("zscale=tin=%s:pin=%s:min=%s:t=linear:npl=100",
			known(source.GetColorTransfer(), "smpte2084", "smpte2084", "arib-std-b67"),
			known(source.GetColorPrimaries(), "bt2020", "bt2020", "bt709", "smpte432"),
			known(source.GetColorSpace(), "bt2020nc", "bt2020nc", "bt2020c", "bt709")),
		"format=gbrpf32le", "zscale=p=bt709", "tonemap=hable:desat=0", "zscale=t=bt709:m=bt709:r=tv",
	}
}

func isRGB(pixelFormat string) bool {
	return slices.ContainsFunc([]string{"rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8"}, func(prefix string) bool {
		return strings.HasPrefix(pixelFormat, prefix)
	})
}
