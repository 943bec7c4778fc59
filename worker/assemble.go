package worker

import (
	"context"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// What the two tracks are called on the loopback address.
const (
	videoName = "video"
	audioName = "audio"
)

// assemble puts a file together of segments in the store, and uploads it.
func (m mediaWork) assemble(ctx context.Context, a Attempt, work *tcoderv1.AssembleWork) (*tcoderv1.TaskReport, error) {
	tracks := map[string]content{videoName: newPieces(m.client, a.SignRead, m.pacing, work.GetVideo())}
	if len(work.GetAudio()) > 0 {
		tracks[audioName] = newPieces(m.client, a.SignRead, m.pacing, work.GetAudio())
	}

	served, err := openSource(ctx, tracks, a.log)
	if err != nil {
		return nil, machineFault("The worker could not open a port for FFmpeg.", err)
	}
	defer served.close()

	request := ffmpeg.AssembleRequest{
		Video: served.url(videoName), TransferError: served.transferError,
		Work: work, Dir: a.dir, TimeLimit: a.Assignment.GetTimeLimit().AsDuration(),
		OnProgress: func(p ffmpeg.Progress) { a.Progress(progressOf(a.Assignment.GetLease(), p)) },
	}
	if tracks[audioName] != nil {
		request.Audio = served.url(audioName)
	}

	rendition, err := ffmpeg.Assemble(ctx, m.tools, request)
	if err != nil {
		return nil, ended(ctx, err)
	}

	renditions := []*tcoderv1.EncodedRendition{rendition}
	waiting := &backlog{dir: a.dir}
	uploads := m.uploader(a, waiting, func(error) {}, func(string) {})
	uploads.add(objectsOf(rendition)...)
	uploads.close()

	if err := uploads.run(ctx); err != nil {
		return nil, err
	}

	a.logScratch(waiting)

	if err := verifyUploads(uploads, renditions); err != nil {
		return nil, err
	}

	return &tcoderv1.TaskReport{
		End: &tcoderv1.TaskReport_Encode{Encode: &tcoderv1.EncodeResult{Renditions: renditions}},
	}, nil
}
