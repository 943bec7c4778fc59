package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// PresignPut implements [objectstore.Signer].
func (s *Store) PresignPut(ctx context.Context, req objectstore.PutRequest) (objectstore.SignedRequest, error) {
	const op = "presign put"
	if req.SizeBytes < 0 || req.SizeBytes > objectstore.MaxPutSizeBytes {
		return objectstore.SignedRequest{}, outOfRange(op, req.Key, "size", req.SizeBytes)
	}
	input := &awss3.PutObjectInput{
		Bucket:      &s.bucket,
		Key:         &req.Key,
		ContentType: optional(req.ContentType),
	}
	if req.SizeBytes > 0 {
		input.ContentLength = &req.SizeBytes
	}
	if req.IfNoneMatch {
		input.IfNoneMatch = aws.String("*")
	}
	return sign(op, req.Key, req.Expires, func(expires func(*awss3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
		return s.presign.PresignPutObject(ctx, input, expires)
	})
}

// PresignGet implements [objectstore.Signer].
func (s *Store) PresignGet(ctx context.Context, key string, opts objectstore.GetOptions) (objectstore.SignedRequest, error) {
	input := &awss3.GetObjectInput{
		Bucket:                     &s.bucket,
		Key:                        &key,
		ResponseContentDisposition: optional(opts.ContentDisposition),
		ResponseContentType:        optional(opts.ContentType),
	}
	return sign("presign get", key, opts.Expires, func(expires func(*awss3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
		return s.presign.PresignGetObject(ctx, input, expires)
	})
}

// PresignPart implements [objectstore.Signer].
func (s *Store) PresignPart(ctx context.Context, key, uploadID string, partNumber int, sizeBytes int64,
	expires time.Duration,
) (objectstore.SignedRequest, error) {
	const op = "presign part"
	if partNumber < 1 || partNumber > objectstore.MaxParts {
		return objectstore.SignedRequest{}, outOfRange(op, key, "part number", int64(partNumber))
	}
	if sizeBytes < 1 || sizeBytes > objectstore.MaxPutSizeBytes {
		return objectstore.SignedRequest{}, outOfRange(op, key, "size", sizeBytes)
	}
	input := &awss3.UploadPartInput{
		Bucket:        &s.bucket,
		Key:           &key,
		UploadId:      &uploadID,
		PartNumber:    aws.Int32(int32(partNumber)),
		ContentLength: &sizeBytes,
	}
	return sign(op, key, expires, func(expires func(*awss3.PresignOptions)) (*v4.PresignedHTTPRequest, error) {
		return s.presign.PresignUploadPart(ctx, input, expires)
	})
}

type presignFunc func(expires func(*awss3.PresignOptions)) (*v4.PresignedHTTPRequest, error)

func sign(op, key string, expires time.Duration, presign presignFunc) (objectstore.SignedRequest, error) {
	if expires < objectstore.MinExpires || expires > objectstore.MaxExpires {
		return objectstore.SignedRequest{}, fmt.Errorf("objectstore: %s %q: expires out of range: %s", op, key, expires)
	}
	req, err := presign(awss3.WithPresignExpires(expires))
	if err != nil {
		return objectstore.SignedRequest{}, classify(op, key, err)
	}
	expiresAt, err := expiry(req.URL)
	if err != nil {
		return objectstore.SignedRequest{}, fmt.Errorf("objectstore: %s %q: %w", op, key, err)
	}
	header := make(map[string]string)
	for name := range req.SignedHeader {
		switch canonical := http.CanonicalHeaderKey(name); canonical {
		case "Host", "Content-Length": // every HTTP client sets these itself
		default:
			header[canonical] = req.SignedHeader.Get(name)
		}
	}
	return objectstore.SignedRequest{Method: req.Method, URL: req.URL, Header: header, ExpiresAt: expiresAt}, nil
}

// expiry reads the deadline out of the URL: it is what the server will check.
func expiry(signedURL string) (time.Time, error) {
	u, err := url.Parse(signedURL)
	if err != nil {
		return time.Time{}, errors.New("signed URL can't be parsed") // its text would hold the signature
	}
	query := u.Query()
	signedAt, err := time.Parse("20060102T150405Z", query.Get("X-Amz-Date"))
	if err != nil {
		return time.Time{}, fmt.Errorf("signing date: %w", err)
	}
	seconds, err := strconv.Atoi(query.Get("X-Amz-Expires"))
	if err != nil {
		return time.Time{}, fmt.Errorf("signed lifetime: %w", err)
	}
	return signedAt.Add(time.Duration(seconds) * time.Second), nil
}

func outOfRange(op, key, what string, value int64) error {
	return fmt.Errorf("objectstore: %s %q: %s out of range: %d", op, key, what, value)
}
