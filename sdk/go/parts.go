package tcoder

import (
	"context"
	"crypto/md5" //nolint:gosec // what S3 calls an ETag, not a protection
	"encoding/hex"
	"io"
	"sync"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// signBatch is how many parts are signed by one call.
const signBatch = 16

// sendParts sends the parts that the store doesn't hold yet and returns all of
// them, by number.
func (u *uploading) sendParts(ctx context.Context, opened *tcoderv1.CreateUploadResponse, resumable bool) (
	[]*tcoderv1.UploadedPart, error,
) {
	upload := opened.GetUpload()
	parts := make([]*tcoderv1.UploadedPart, upload.GetPartCount())
	if resumable {
		if err := u.findStored(ctx, upload, parts); err != nil {
			return nil, err
		}
	}
	signer := newPartSigner(u.client, upload.GetId(), opened.GetParts(), missing(parts))

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	queue := make(chan uint32)
	var senders sync.WaitGroup
	for range min(u.opts.Parallel, len(parts)) {
		senders.Go(func() {
			for number := range queue {
				part, err := u.sendPart(ctx, upload, signer, number)
				if err != nil {
					stop(err)

					return
				}
				parts[number-1] = part
			}
		})
	}
	feed(ctx, queue, missing(parts))
	senders.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) //nolint:wrapcheck // of sendPart
	}

	return parts, nil
}

func missing(parts []*tcoderv1.UploadedPart) []uint32 {
	var numbers []uint32
	for i, part := range parts {
		if part == nil {
			numbers = append(numbers, uint32(i+1))
		}
	}

	return numbers
}

// feed sends items to a queue and closes it, early if ctx ends.
func feed[T any](ctx context.Context, queue chan<- T, items []T) {
	defer close(queue)
	for _, item := range items {
		select {
		case <-ctx.Done():
			return
		case queue <- item:
		}
	}
}

// findStored fills in the parts that an earlier call has sent. A part is taken
// only if it is what the source has there now: the ETag of a part is its MD5,
// and where a store computes something else the part is sent again.
func (u *uploading) findStored(ctx context.Context, upload *tcoderv1.Upload, parts []*tcoderv1.UploadedPart) error {
	held, err := u.client.GetUpload(ctx, upload.GetId())
	if err != nil {
		return err
	}
	for _, part := range held.GetParts() {
		number := part.GetPartNumber()
		if number == 0 || int(number) > len(parts) {
			continue
		}
		piece := u.partOf(upload, number)
		if part.GetSizeBytes() != uint64(piece.size) {
			continue
		}
		same, err := piece.hasMD5(ctx, part.GetEtag())
		if err != nil {
			return err
		}
		if same {
			parts[number-1] = part
			piece.sent(piece.size)
		}
	}

	return nil
}

// partOf is the part's bytes: all parts but the last have the same size.
func (u *uploading) partOf(upload *tcoderv1.Upload, number uint32) piece {
	size := int64(upload.GetPartSizeBytes())
	offset := int64(number-1) * size

	return piece{
		source: u.source,
		offset: offset,
		size:   min(size, u.opts.SizeBytes-offset),
		sent:   u.progress.part(number),
	}
}

func (u *uploading) sendPart(ctx context.Context, upload *tcoderv1.Upload, signer *partSigner, number uint32) (
	*tcoderv1.UploadedPart, error,
) {
	first, err := signer.sign(ctx, number)
	if err != nil {
		return nil, err
	}
	piece := u.partOf(upload, number)
	etag, err := u.client.put(ctx, piece, first, func(ctx context.Context) (*tcoderv1.SignedRequest, error) {
		signer.forget(number)

		return signer.sign(ctx, number)
	})
	if err != nil {
		return nil, err
	}

	return &tcoderv1.UploadedPart{
		PartNumber: number,
		Etag:       etag,
		SizeBytes:  uint64(piece.size),
	}, nil
}

// partSigner asks for signed parts, some at a time.
type partSigner struct {
	client   *Client
	uploadID string

	mu      sync.Mutex
	signed  map[uint32]*tcoderv1.SignedRequest
	pending []uint32 // to be signed in the next calls, ascending
}

func newPartSigner(c *Client, uploadID string, signed []*tcoderv1.SignedPart, wanted []uint32) *partSigner {
	s := &partSigner{client: c, uploadID: uploadID, signed: make(map[uint32]*tcoderv1.SignedRequest)}
	for _, part := range signed {
		s.signed[part.GetPartNumber()] = part.GetRequest()
	}
	for _, number := range wanted {
		if s.signed[number] == nil {
			s.pending = append(s.pending, number)
		}
	}

	return s
}

// sign returns the signed request of a part, and asks for those of the next
// parts with it. Others wait meanwhile: theirs is likely among them.
func (s *partSigner) sign(ctx context.Context, number uint32) (*tcoderv1.SignedRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if request := s.signed[number]; request != nil && !expiresSoon(request) {
		return request, nil
	}
	batch := []uint32{number}
	for len(s.pending) > 0 && len(batch) < signBatch {
		if s.pending[0] != number {
			batch = append(batch, s.pending[0])
		}
		s.pending = s.pending[1:]
	}
	res, err := call(ctx, s.client, defaultCallTimeout, s.client.uploads.SignUploadParts,
		&tcoderv1.SignUploadPartsRequest{UploadId: s.uploadID, PartNumbers: batch})
	if err != nil {
		return nil, err
	}
	for _, part := range res.GetParts() {
		s.signed[part.GetPartNumber()] = part.GetRequest()
	}

	return s.signed[number], nil
}

func (s *partSigner) forget(number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.signed, number)
}

// piece is a range of the source.
type piece struct {
	source io.ReaderAt
	offset int64
	size   int64
	sent   func(bytes int64) // tells how much of it is sent, also when that falls
}

func (p piece) hasMD5(ctx context.Context, etag string) (bool, error) {
	sum := md5.New() //nolint:gosec // see the import
	reader := &pieceReader{ctx: ctx, section: io.NewSectionReader(p.source, p.offset, p.size), want: p.size}
	if _, err := io.Copy(sum, reader); err != nil {
		return false, brokenSource(err)
	}

	return hex.EncodeToString(sum.Sum(nil)) == etag, nil
}
