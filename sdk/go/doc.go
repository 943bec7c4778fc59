// Package tcoder is the Go client of a tcoder server: it uploads videos,
// follows their jobs and fetches the results.
//
//	client, err := tcoder.New("http://127.0.0.1:8080")
//	result, err := client.UploadFile(ctx, "clip.mp4", tcoder.UploadOptions{
//		Spec: &tcoderv1.JobSpec{Preset: "hls-adaptive"},
//	})
//	job, err := client.Wait(ctx, result.Job.GetId())
//	files, err := client.Download(ctx, job.GetId(), tcoder.DownloadOptions{Dir: "out"})
//
// Messages are those of gen/go/tcoder/v1. Bytes of videos travel straight
// between the caller and the object store, by requests that the server signs.
//
// Every method repeats what is safe to repeat when the server or the object
// store can't be reached, with growing, jittered pauses (see [RetryPolicy]),
// and ends when its context does. Refusals of the server are [*Error]; its
// Reason says why, for programs. A server that doesn't answer is
// [ErrUnreachable]. No error holds a signed URL.
//
// A [Client] is safe for concurrent use and keeps nothing but connections.
package tcoder
