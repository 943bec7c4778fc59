package worker

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
)

// abortPatience is how long giving up an upload in parts may take.
const abortPatience = 10 * time.Second

// stepper has the control plane do a step of writing an object in parts.
type stepper func(ctx context.Context, object *tcoderv1.EncodedObject, step *tcoderv1.PartsStep) (*tcoderv1.SignResponse, error)

func (s stepper) patiently(
	ctx context.Context, pacing transferPacing, object *tcoderv1.EncodedObject, step *tcoderv1.PartsStep,
) (*tcoderv1.SignResponse, error) {
	return patiently(ctx, pacing, func(ctx context.Context) (*tcoderv1.SignResponse, error) { return s(ctx, object, step) })
}

// inParts tells whether the store takes an object only in parts.
func (u *uploader) inParts(object *tcoderv1.EncodedObject) bool {
	return u.maxPut > 0 && object.GetSizeBytes() > u.maxPut
}

// putParts uploads an object in parts, some at a time, and has the control
// plane make the object of them. If that fails the parts are dropped, as far as
// anybody can be reached.
func (u *uploader) putParts(ctx context.Context, object *tcoderv1.EncodedObject) (err error) {
	begun, err := u.step.patiently(ctx, u.pacing, object, &tcoderv1.PartsStep{})
	if err != nil {
		return err
	}

	id, partSize := begun.GetParts().GetUploadId(), int64(begun.GetParts().GetPartSizeBytes())
	if id == "" || partSize <= 0 {
		return transferFailed("The control plane began no upload in parts.", nil)
	}

	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
			defer cancel()

			_, _ = u.step(ctx, object, &tcoderv1.PartsStep{UploadId: id, Abort: true})
		}
	}()

	size := int64(object.GetSizeBytes())
	etags := make([]string, (size+partSize-1)/partSize)

	for first := 0; first < len(etags); first += signBatch {
		count := min(signBatch, len(etags)-first)

		signed, err := u.signParts(ctx, object, id, first, count)
		if err != nil {
			return err
		}

		parts, ctx := errgroup.WithContext(ctx)
		parts.SetLimit(uploadParallel)

		for i, request := range signed {
			at := first + i

			parts.Go(func() (err error) {
				from := int64(at) * partSize
				etags[at], err = u.put(ctx, upload{
					object: object, from: from, size: min(partSize, size-from),
					sign: func(ctx context.Context) (*tcoderv1.SignedRequest, error) {
						fresh, err := u.signParts(ctx, object, id, at, 1)
						if err != nil {
							return nil, err
						}

						return fresh[0], nil
					},
				}, request)
				if err == nil && etags[at] == "" {
					err = transferFailed("The store gave a part no ETag.", nil)
				}

				return err
			})
		}

		if err := parts.Wait(); err != nil {
			return err
		}
	}

	_, err = u.step.patiently(ctx, u.pacing, object, &tcoderv1.PartsStep{UploadId: id, Etags: etags})

	return err
}

// signParts gets PUTs of parts, of which the first has this index.
func (u *uploader) signParts(
	ctx context.Context, object *tcoderv1.EncodedObject, id string, first, count int,
) ([]*tcoderv1.SignedRequest, error) {
	response, err := u.step.patiently(ctx, u.pacing, object, &tcoderv1.PartsStep{
		UploadId: id, First: uint32(first + 1), Count: uint32(count),
	})
	if err != nil {
		return nil, err
	}

	if len(response.GetRequests()) != count {
		return nil, wrongNumber()
	}

	return response.GetRequests(), nil
}
