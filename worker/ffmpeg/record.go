package ffmpeg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// Segments are what was finished of one HLS rendition since the last time.
type Segments struct {
	// Rendition is what it is: name, codecs, and of a picture its size and cadence.
	Rendition *tcoderv1.RenditionResult
	// Init is its init segment.
	Init *tcoderv1.EncodedObject
	// First is the position of the first of Objects in the work, from 0.
	First int
	// Objects are the segments.
	Objects []*tcoderv1.EncodedObject
}

// recorder reads the HLS segments of an encode as FFmpeg finishes them, each
// once: a segment that was told may be removed.
type recorder struct {
	work *tcoderv1.EncodeWork
	dir  string

	mu         sync.Mutex
	renditions []*recording
}

// recording is one rendition. Its first error is kept: nothing is read after it.
type recording struct {
	name string
	head track
	init *tcoderv1.EncodedObject
	made []*tcoderv1.EncodedObject
	sum  totals
	err  error
}

func newRecorder(work *tcoderv1.EncodeWork, dir string) *recorder {
	r := &recorder{work: work, dir: dir}
	for _, name := range hlsFolders(work.GetOutput()) {
		r.renditions = append(r.renditions, &recording{name: name})
	}

	return r
}

// take reads what was finished since the last call, and returns it, the
// smallest rendition's first: a player can start on that.
func (r *recorder) take() []Segments {
	r.mu.Lock()
	defer r.mu.Unlock()

	var finished []Segments

	for _, made := range slices.Backward(r.renditions) {
		before := len(made.made)

		for more := true; more; {
			more = r.next(made)
		}

		if len(made.made) > before {
			about := made.sum.result(made.name, made.head)
			finished = append(finished, Segments{
				Rendition: &tcoderv1.RenditionResult{
					Name: about.GetName(), Codecs: about.GetCodecs(), Width: about.GetWidth(), Height: about.GetHeight(),
					FrameRate: about.GetFrameRate(),
				},
				Init: made.init, First: before, Objects: made.made[before:],
			})
		}
	}

	return finished
}

// teller returns what reads and tells of finished segments, one call at a time.
func (r *recorder) teller(onSegments func([]Segments)) func() {
	var mu sync.Mutex

	return func() {
		mu.Lock()
		defer mu.Unlock()

		if finished := r.take(); len(finished) > 0 && onSegments != nil {
			onSegments(finished)
		}
	}
}

// next reads a rendition's next segment; false if that isn't finished. FFmpeg
// writes a segment under another name and renames it. It writes the init
// segment in place, but before it starts the first segment.
func (r *recorder) next(made *recording) bool {
	if made.err != nil {
		return false
	}

	name := fmt.Sprintf("%s/%05d%s", made.name, firstSegment(r.work)+len(made.made), segmentExt)

	file, size, err := openResult(r.dir, name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			made.err = err
		}

		return false
	}
	defer file.Close() //nolint:errcheck // only read

	if made.init == nil {
		if made.err = r.begin(made); made.err != nil {
			return false
		}
	}

	segment, err := readSegment(file, made.head)
	if err == nil {
		err = made.add(segment, &tcoderv1.EncodedObject{
			Name: name, SizeBytes: size, ContentType: typeSegment,
		}, firstTick(r.work, made.head))
	}

	made.err = err

	return err == nil
}

// begin reads a rendition's init segment.
func (r *recorder) begin(made *recording) error {
	name := made.name + "/" + initName

	file, size, err := openResult(r.dir, name)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read

	head, err := readTrack(file)
	if err != nil {
		return err
	}

	made.head = head
	made.init = &tcoderv1.EncodedObject{Name: name, SizeBytes: size, ContentType: head.contentType()}

	return nil
}

// add takes a segment in, which has to follow the one before.
func (made *recording) add(segment segment, object *tcoderv1.EncodedObject, begin uint64) error {
	first := len(made.made) == 0

	at := begin + made.sum.ticks
	if !first {
		at += made.head.priming
	}

	if segment.start != at {
		return fmt.Errorf("%w: %s: segment %d starts at %d, the one before ends at %d",
			errResult, made.name, len(made.made), segment.start, at)
	}

	if first {
		// Players drop an encoder's priming, so the first segment plays shorter.
		segment.ticks -= min(segment.ticks, made.head.priming)
	}

	object.Duration = durationpb.New(made.head.duration(segment.ticks))
	made.sum.add(segment, object.GetSizeBytes(), made.head)
	made.made = append(made.made, object)

	return nil
}

// result is a rendition as it was read, once FFmpeg has ended.
func (r *recorder) result(name string) (reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, made := range r.renditions {
		if made.name == name {
			return r.resultOf(made)
		}
	}

	return reading{}, fmt.Errorf("%w: %s: not a rendition", errResult, name)
}

func (r *recorder) resultOf(made *recording) (reading, error) {
	if made.err != nil {
		return reading{}, made.err
	}

	if len(made.made) == 0 {
		return reading{}, fmt.Errorf("%w: %s: no segments", errResult, made.name)
	}

	if err := r.complete(made); err != nil {
		return reading{}, err
	}

	found := reading{rendition: &tcoderv1.EncodedRendition{
		Result: made.sum.result(made.name, made.head), InitSegment: made.init, Segments: made.made,
	}}
	if made.head.isVideo {
		found.picture = found.rendition.GetResult().GetDuration().AsDuration()
	} else {
		found.sound = found.rendition.GetResult().GetDuration().AsDuration()
	}

	return found, nil
}

// complete refuses a rendition with segments beyond a hole.
func (r *recorder) complete(made *recording) error {
	entries, err := os.ReadDir(filepath.Join(r.dir, made.name))
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}

	read := map[string]bool{}
	for _, object := range made.made {
		read[filepath.Base(object.GetName())] = true
	}

	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), segmentExt) && !read[entry.Name()] {
			return fmt.Errorf("%w: %s: segment %d is missing", errResult, made.name, len(made.made))
		}
	}

	return nil
}
