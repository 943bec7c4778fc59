package mapper

import (
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
)

// EncodeResultFromProto returns the result that a worker reports.
func EncodeResultFromProto(r *tcoderv1.EncodeResult) media.EncodeResult {
	return media.EncodeResult{
		Renditions: mapSlice(r.GetRenditions(), func(e *tcoderv1.EncodedRendition) media.EncodedRendition {
			return media.EncodedRendition{
				Result:      renditionResultFromProto(e.GetResult()),
				InitSegment: optionalObjectFromProto(e.GetInitSegment()),
				Segments:    mapSlice(e.GetSegments(), EncodedObjectFromProto),
				File:        optionalObjectFromProto(e.GetFile()),
			}
		}),
	}
}

// UploadedSegmentsFromProto returns segments that a worker has uploaded.
func UploadedSegmentsFromProto(u *tcoderv1.UploadedSegments) media.UploadedSegments {
	return media.UploadedSegments{
		Rendition: renditionResultFromProto(u.GetRendition()),
		Init:      EncodedObjectFromProto(u.GetInitSegment()),
		First:     int(u.GetFirst()),
		Segments:  mapSlice(u.GetSegments(), EncodedObjectFromProto),
	}
}

// EncodedObjectFromProto returns an object that a worker made or wants to write.
func EncodedObjectFromProto(o *tcoderv1.EncodedObject) media.EncodedObject {
	return media.EncodedObject{
		Name:        o.GetName(),
		SizeBytes:   sizeFromProto(o.GetSizeBytes()),
		Duration:    o.GetDuration().AsDuration(),
		ContentType: o.GetContentType(),
	}
}

// OutputToProto returns the message of a published output.
func OutputToProto(o media.Output) *tcoderv1.Output {
	return &tcoderv1.Output{
		Name:       o.Name,
		Kind:       outputKindToProto(o.Kind),
		Entry:      o.Entry,
		Objects:    mapSlice(o.Objects, OutputObjectToProto),
		Renditions: mapSlice(o.Renditions, renditionResultToProto),
		Duration:   durationToProto(o.Duration),
		SizeBytes:  uint64(o.SizeBytes),
	}
}

// OutputObjectToProto returns the message of a stored file.
func OutputObjectToProto(o media.OutputObject) *tcoderv1.OutputObject {
	return &tcoderv1.OutputObject{
		Name:        o.Name,
		Key:         o.Key,
		SizeBytes:   uint64(o.SizeBytes),
		ContentType: o.ContentType,
	}
}

func optionalObjectFromProto(o *tcoderv1.EncodedObject) *media.EncodedObject {
	if o == nil {
		return nil
	}
	object := EncodedObjectFromProto(o)

	return &object
}

func renditionResultToProto(r media.RenditionResult) *tcoderv1.RenditionResult {
	return &tcoderv1.RenditionResult{
		Name:              r.Name,
		Codecs:            r.Codecs,
		Width:             uint32(r.Width),
		Height:            uint32(r.Height),
		FrameRate:         rationalToProto(r.FrameRate),
		Duration:          durationToProto(r.Duration),
		SizeBytes:         uint64(r.SizeBytes),
		AverageBitrateBps: uint64(r.AverageBitrateBPS),
		PeakBitrateBps:    uint64(r.PeakBitrateBPS),
		FrameCount:        uint64(r.FrameCount),
		Copied:            r.Copied,
		Codec:             r.Codec,
		Profile:           r.Profile,
		Level:             r.Level,
		SourceDamaged:     r.SourceDamaged,
	}
}

func renditionResultFromProto(r *tcoderv1.RenditionResult) media.RenditionResult {
	return media.RenditionResult{
		Name:              word(r.GetName()),
		Codecs:            word(r.GetCodecs()),
		Width:             int(r.GetWidth()),
		Height:            int(r.GetHeight()),
		FrameRate:         rationalFromProto(r.GetFrameRate()),
		Duration:          r.GetDuration().AsDuration(),
		SizeBytes:         sizeFromProto(r.GetSizeBytes()),
		AverageBitrateBPS: sizeFromProto(r.GetAverageBitrateBps()),
		PeakBitrateBPS:    sizeFromProto(r.GetPeakBitrateBps()),
		FrameCount:        sizeFromProto(r.GetFrameCount()),
		Copied:            r.GetCopied(),
		Codec:             word(r.GetCodec()),
		Profile:           word(r.GetProfile()),
		Level:             word(r.GetLevel()),
		SourceDamaged:     r.GetSourceDamaged(),
	}
}
