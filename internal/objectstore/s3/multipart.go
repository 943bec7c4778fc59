package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// CreateMultipart implements [objectstore.Multipart].
func (s *Store) CreateMultipart(ctx context.Context, key string, opts objectstore.MultipartOptions) (string, error) {
	out, err := s.client.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{
		Bucket:       &s.bucket,
		Key:          &key,
		ContentType:  optional(opts.ContentType),
		CacheControl: optional(opts.CacheControl),
	})
	if err != nil {
		return "", classify("create multipart", key, err)
	}
	return aws.ToString(out.UploadId), nil
}

// ListParts implements [objectstore.Multipart].
func (s *Store) ListParts(ctx context.Context, key, uploadID string) ([]objectstore.Part, error) {
	var parts []objectstore.Part
	pages := awss3.NewListPartsPaginator(s.client, &awss3.ListPartsInput{
		Bucket:   &s.bucket,
		Key:      &key,
		UploadId: &uploadID,
		MaxParts: s.pageSize,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, classify("list parts", key, err)
		}
		for _, part := range page.Parts {
			parts = append(parts, objectstore.Part{
				Number:    int(aws.ToInt32(part.PartNumber)),
				ETag:      unquote(aws.ToString(part.ETag)),
				SizeBytes: aws.ToInt64(part.Size),
			})
		}
	}
	return parts, nil
}

// CompleteMultipart implements [objectstore.Multipart].
func (s *Store) CompleteMultipart(ctx context.Context, key, uploadID string, parts []objectstore.Part) error {
	const op = "complete multipart"
	completed, err := completedParts(parts)
	if err != nil {
		return fmt.Errorf("objectstore: %s %q: %w", op, key, err)
	}
	_, err = s.client.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{
		Bucket:          &s.bucket,
		Key:             &key,
		UploadId:        &uploadID,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: completed},
	})
	return classify(op, key, err)
}

// AbortMultipart implements [objectstore.Multipart].
func (s *Store) AbortMultipart(ctx context.Context, key, uploadID string) error {
	_, err := s.client.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{
		Bucket:   &s.bucket,
		Key:      &key,
		UploadId: &uploadID,
	})
	if err = classify("abort multipart", key, err); errors.Is(err, objectstore.ErrUploadNotFound) {
		return nil
	}
	return err
}

// ListMultipart implements [objectstore.Multipart].
func (s *Store) ListMultipart(ctx context.Context, prefix string, visit func(key, uploadID string) error) error {
	// In pages of 1,000, which is more than a job has: versitygw doesn't find the second one.
	pages := awss3.NewListMultipartUploadsPaginator(s.client, &awss3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: optional(prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return classify("list multipart", prefix, err)
		}
		for _, upload := range page.Uploads {
			if err := visit(aws.ToString(upload.Key), aws.ToString(upload.UploadId)); err != nil {
				return err
			}
		}
	}
	return nil
}

// completedParts orders the list as the protocol wants it. The checks are
// made here because servers answer an empty list or a double number with
// codes of their own.
func completedParts(parts []objectstore.Part) ([]types.CompletedPart, error) {
	if len(parts) == 0 {
		return nil, fmt.Errorf("%w: no parts", objectstore.ErrInvalidPart)
	}
	ordered := slices.SortedFunc(slices.Values(parts), func(a, b objectstore.Part) int {
		return cmp.Compare(a.Number, b.Number)
	})
	completed := make([]types.CompletedPart, 0, len(ordered))
	for i, part := range ordered {
		switch {
		case part.Number < 1 || part.Number > objectstore.MaxParts:
			return nil, fmt.Errorf("%w: part number %d", objectstore.ErrInvalidPart, part.Number)
		case i > 0 && ordered[i-1].Number == part.Number:
			return nil, fmt.Errorf("%w: part %d twice", objectstore.ErrInvalidPart, part.Number)
		case unquote(part.ETag) == "":
			return nil, fmt.Errorf("%w: part %d without ETag", objectstore.ErrInvalidPart, part.Number)
		}
		completed = append(completed, types.CompletedPart{
			PartNumber: aws.Int32(int32(part.Number)),
			ETag:       aws.String(`"` + unquote(part.ETag) + `"`),
		})
	}
	return completed, nil
}

func unquote(etag string) string {
	return strings.Trim(etag, `"`)
}
