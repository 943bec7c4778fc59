package s3

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/encoding/httpbinding"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// unsignedPayload says that the body isn't part of the signature, as it isn't
// known yet.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// presigner signs requests for others to send. Every segment of every job is
// written by one, so it calls the SDK's signer itself: the SDK's client for it
// resolves the endpoint and builds a stack of middleware each time, which takes
// ten times as long. It is asked once where the bucket is.
type presigner struct {
	client      *awss3.PresignClient
	bucket      string
	region      string
	credentials aws.Credentials
	signer      *v4.Signer
	base        atomic.Pointer[url.URL] // of the bucket, ends in a slash; nil: not asked yet
}

func newPresigner(client *awss3.Client, cfg Config) *presigner {
	return &presigner{
		client: awss3.NewPresignClient(client), bucket: cfg.Bucket, region: cfg.Region,
		credentials: aws.Credentials{AccessKeyID: cfg.AccessKeyID, SecretAccessKey: cfg.SecretAccessKey},
		// S3 takes paths as they are escaped once.
		signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }),
	}
}

// address is where the bucket is. Nobody is contacted for it.
func (p *presigner) address(ctx context.Context) (*url.URL, error) {
	if base := p.base.Load(); base != nil {
		return base, nil
	}
	const key = "key"
	sample, err := p.client.PresignGetObject(ctx, &awss3.GetObjectInput{Bucket: &p.bucket, Key: aws.String(key)})
	if err != nil {
		return nil, fmt.Errorf("address of bucket %q: %w", p.bucket, err)
	}
	address, _, _ := strings.Cut(sample.URL, "?")
	base, err := url.Parse(strings.TrimSuffix(address, key))
	if err != nil {
		return nil, fmt.Errorf("address of bucket %q: %w", p.bucket, err)
	}
	p.base.Store(base)
	return base, nil
}

// unsigned is a request that is to be signed. Zero values are left out.
type unsigned struct {
	op, method, key string
	query           url.Values
	header          map[string]string
	sizeBytes       int64
	expires         time.Duration
}

func (p *presigner) sign(ctx context.Context, u unsigned) (objectstore.SignedRequest, error) {
	if u.expires < objectstore.MinExpires || u.expires > objectstore.MaxExpires {
		return objectstore.SignedRequest{}, fmt.Errorf("objectstore: %s %q: expires out of range: %s", u.op, u.key, u.expires)
	}
	if u.key == "" {
		return objectstore.SignedRequest{}, fmt.Errorf("objectstore: %s: the key is empty", u.op)
	}
	base, err := p.address(ctx)
	if err != nil {
		return objectstore.SignedRequest{}, fmt.Errorf("objectstore: %s %q: %w", u.op, u.key, err)
	}
	target := *base
	target.Path, target.RawPath = base.Path+u.key, base.EscapedPath()+httpbinding.EscapePath(u.key, false)
	query := url.Values{"X-Amz-Expires": {strconv.Itoa(int(u.expires / time.Second))}}
	maps.Copy(query, u.query)
	target.RawQuery = query.Encode()
	req := &http.Request{Method: u.method, URL: &target, Host: target.Host, Header: http.Header{}, ContentLength: u.sizeBytes}
	for name, value := range u.header {
		req.Header.Set(name, value)
	}
	now := time.Now().UTC().Truncate(time.Second) // the signature knows no less
	signed, _, err := p.signer.PresignHTTP(ctx, p.credentials, req, unsignedPayload, "s3", p.region, now)
	if err != nil {
		return objectstore.SignedRequest{}, fmt.Errorf("objectstore: %s %q: %w", u.op, u.key, err)
	}
	return objectstore.SignedRequest{
		Method: u.method, URL: signed, Header: u.header, ExpiresAt: now.Add(u.expires.Truncate(time.Second)),
	}, nil
}

// PresignPut implements [objectstore.Signer].
func (s *Store) PresignPut(ctx context.Context, req objectstore.PutRequest) (objectstore.SignedRequest, error) {
	const op = "presign put"
	if req.SizeBytes < 0 || req.SizeBytes > objectstore.MaxPutSizeBytes {
		return objectstore.SignedRequest{}, outOfRange(op, req.Key, "size", req.SizeBytes)
	}
	header := map[string]string{}
	if req.ContentType != "" {
		header["Content-Type"] = req.ContentType
	}
	if req.CacheControl != "" {
		header["Cache-Control"] = req.CacheControl
	}
	if req.IfNoneMatch {
		header["If-None-Match"] = "*"
	}
	return s.presigner.sign(ctx, unsigned{
		op: op, method: http.MethodPut, key: req.Key, header: header, sizeBytes: req.SizeBytes, expires: req.Expires,
	})
}

// PresignGet implements [objectstore.Signer].
func (s *Store) PresignGet(ctx context.Context, key string, opts objectstore.GetOptions) (objectstore.SignedRequest, error) {
	query := url.Values{}
	if opts.ContentDisposition != "" {
		query.Set("response-content-disposition", opts.ContentDisposition)
	}
	if opts.ContentType != "" {
		query.Set("response-content-type", opts.ContentType)
	}
	return s.presigner.sign(ctx, unsigned{op: "presign get", method: http.MethodGet, key: key, query: query, expires: opts.Expires})
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
	return s.presigner.sign(ctx, unsigned{
		op: op, method: http.MethodPut, key: key, sizeBytes: sizeBytes, expires: expires,
		query: url.Values{"partNumber": {strconv.Itoa(partNumber)}, "uploadId": {uploadID}},
	})
}

func outOfRange(op, key, what string, value int64) error {
	return fmt.Errorf("objectstore: %s %q: %s out of range: %d", op, key, what, value)
}
