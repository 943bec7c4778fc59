package s3

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// deletesAtOnce keeps deleting thousands of segments from taking minutes.
const deletesAtOnce = 16

// Head implements [objectstore.Objects].
func (s *Store) Head(ctx context.Context, key string) (objectstore.ObjectInfo, error) {
	out, err := s.client.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &s.bucket, Key: &key})
	if err != nil {
		return objectstore.ObjectInfo{}, classify("head", key, err)
	}
	return objectstore.ObjectInfo{
		Key:          key,
		SizeBytes:    aws.ToInt64(out.ContentLength),
		ETag:         unquote(aws.ToString(out.ETag)),
		ContentType:  aws.ToString(out.ContentType),
		LastModified: aws.ToTime(out.LastModified).UTC(),
	}, nil
}

// Put implements [objectstore.Objects].
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker, opts objectstore.PutOptions) error {
	input := &awss3.PutObjectInput{
		Bucket:       &s.bucket,
		Key:          &key,
		Body:         body,
		ContentType:  optional(opts.ContentType),
		CacheControl: optional(opts.CacheControl),
	}
	if opts.IfNoneMatch {
		input.IfNoneMatch = aws.String("*")
	}
	if opts.IfMatch != "" {
		input.IfMatch = aws.String(`"` + opts.IfMatch + `"`)
	}
	_, err := s.client.PutObject(ctx, input)
	return classify("put", key, err)
}

// Get implements [objectstore.Objects].
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, objectstore.ObjectInfo, error) {
	out, err := s.client.GetObject(ctx, &awss3.GetObjectInput{Bucket: &s.bucket, Key: &key})
	if err != nil {
		return nil, objectstore.ObjectInfo{}, classify("get", key, err)
	}
	return out.Body, objectstore.ObjectInfo{
		Key:          key,
		SizeBytes:    aws.ToInt64(out.ContentLength),
		ETag:         unquote(aws.ToString(out.ETag)),
		ContentType:  aws.ToString(out.ContentType),
		LastModified: aws.ToTime(out.LastModified).UTC(),
	}, nil
}

// Delete implements [objectstore.Objects].
func (s *Store) Delete(ctx context.Context, key string) error {
	_, err := s.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &s.bucket, Key: &key})
	if err = classify("delete", key, err); errors.Is(err, objectstore.ErrNotFound) {
		return nil
	}
	return err
}

// DeletePrefix implements [objectstore.Objects].
func (s *Store) DeletePrefix(ctx context.Context, prefix string) error {
	if prefix == "" {
		return errors.New("objectstore: delete prefix: an empty prefix would empty the bucket")
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(deletesAtOnce)
	listErr := s.List(groupCtx, prefix, func(object objectstore.ObjectInfo) error {
		group.Go(func() error { return s.Delete(groupCtx, object.Key) })
		return nil
	})
	// A failed delete also ends the listing, so its error is the cause.
	if err := group.Wait(); err != nil {
		return fmt.Errorf("objectstore: delete prefix %q: %w", prefix, err)
	}
	return listErr
}

// List implements [objectstore.Objects].
func (s *Store) List(ctx context.Context, prefix string, visit func(objectstore.ObjectInfo) error) error {
	pages := awss3.NewListObjectsV2Paginator(s.client, &awss3.ListObjectsV2Input{
		Bucket:  &s.bucket,
		Prefix:  optional(prefix),
		MaxKeys: s.pageSize,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return classify("list", prefix, err)
		}
		for _, object := range page.Contents {
			err := visit(objectstore.ObjectInfo{
				Key:          aws.ToString(object.Key),
				SizeBytes:    aws.ToInt64(object.Size),
				ETag:         unquote(aws.ToString(object.ETag)),
				LastModified: aws.ToTime(object.LastModified).UTC(),
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
