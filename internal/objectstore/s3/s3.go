// Package s3 is the object store on Cloudflare R2 or any S3-compatible server.
// It is the only owner of aws-sdk-go-v2.
//
// What it settles once, because stores differ:
//   - No checksums beyond what an operation demands, and single-object deletes
//     only: R2 refuses or charges for the SDK's defaults.
//   - Nothing is read from the environment or from ~/.aws: all configuration
//     is in [Config].
//   - Presigned URLs are signed for the public endpoint. A proxy in between
//     has to keep the Host header, which is part of the signature.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// A call is tried for a few seconds at most: R2 refuses more than one write of
// a key in a second, and callers have loops of their own for what takes longer.
const (
	maxAttempts = 4
	maxBackoff  = time.Second
	// tooOften is what R2 says of a second write of a key within a second.
	tooOften = "TooManyRequests"
)

// Config says which bucket, and how to reach it.
type Config struct {
	// Endpoint is the base URL the control plane uses, such as
	// https://ACCOUNT.r2.cloudflarestorage.com. Empty means AWS S3 in Region.
	Endpoint string
	// PublicEndpoint is the base URL by which browsers and workers reach the
	// same store; it goes into presigned URLs. Empty means Endpoint.
	PublicEndpoint string
	// Region is "auto" when empty, which is what R2 and the local server want.
	Region          string
	AccessKeyID     string
	SecretAccessKey string
	Bucket          string
	// PathStyle puts the bucket into the path (host/bucket/key) and not into
	// the host name (bucket.host/key). R2 takes both, local servers the path.
	PathStyle bool
	// PageSize is how many entries one list call asks for; 0 leaves it to the
	// server (1,000).
	PageSize int32
}

// Store is a bucket on an S3-compatible server.
type Store struct {
	bucket   string
	region   string
	pageSize *int32
	client   *awss3.Client
	http     *http.Client

	presigner *presigner
}

var _ objectstore.Store = (*Store)(nil)

// New checks the configuration and opens no connection.
func New(cfg Config) (*Store, error) {
	if cfg.Region == "" {
		cfg.Region = "auto"
	}
	if cfg.PublicEndpoint == "" {
		cfg.PublicEndpoint = cfg.Endpoint
	}
	if err := check(cfg); err != nil {
		return nil, err
	}
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("objectstore: http.DefaultTransport was replaced")
	}
	transport = transport.Clone()
	transport.MaxIdleConnsPerHost = 64 // one host takes all requests
	httpClient := &http.Client{Transport: transport}

	// Refusals of a write that met another one: S3 asks to try again, and
	// versitygw says the last of a write into a folder that the deletion of its
	// last object takes away at that moment.
	again := map[string]struct{}{
		"OperationAborted": {}, "ConditionalRequestConflict": {}, "ExistingObjectIsDirectory": {}, tooOften: {},
	}
	randomly := retry.NewExponentialJitterBackoff(maxBackoff)
	backoff := retry.BackoffDelayerFunc(func(attempt int, err error) (time.Duration, error) {
		if code(err) == tooOften {
			return maxBackoff, nil
		}
		return randomly.BackoffDelay(attempt, err)
	})
	newClient := func(endpoint string) *awss3.Client {
		return awss3.New(awss3.Options{
			BaseEndpoint: optional(endpoint),
			Region:       cfg.Region,
			UsePathStyle: cfg.PathStyle,
			Credentials:  credentials.NewStaticCredentialsProvider(cfg.AccessKeyID, cfg.SecretAccessKey, ""),
			HTTPClient:   httpClient,
			Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts, o.Backoff = maxAttempts, backoff
				o.Retryables = append(o.Retryables, retry.RetryableErrorCode{Codes: again})
			}),
			RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
			ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		})
	}
	store := &Store{
		bucket:    cfg.Bucket,
		region:    cfg.Region,
		client:    newClient(cfg.Endpoint),
		http:      httpClient,
		presigner: newPresigner(newClient(cfg.PublicEndpoint), cfg),
	}
	if cfg.PageSize > 0 {
		store.pageSize = &cfg.PageSize
	}
	return store, nil
}

// Close drops idle connections. Calls in flight go on.
func (s *Store) Close() {
	s.http.CloseIdleConnections()
}

// EnsureBucket creates the bucket unless it exists, and so proves address and
// credentials. It needs the right to create buckets only if there is none.
// Errors: [objectstore.ErrUnavailable].
func (s *Store) EnsureBucket(ctx context.Context) error {
	_, err := s.client.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: &s.bucket})
	if err == nil {
		return nil
	}
	if status(err) != http.StatusNotFound {
		return classify("head bucket", s.bucket, err)
	}
	input := &awss3.CreateBucketInput{Bucket: &s.bucket}
	if s.region != "auto" && s.region != "us-east-1" {
		input.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(s.region),
		}
	}
	_, err = s.client.CreateBucket(ctx, input)
	if code(err) == "BucketAlreadyOwnedByYou" { // somebody else of ours was faster
		return nil
	}
	return classify("create bucket", s.bucket, err)
}

// PutCORS replaces the bucket's CORS rules: pages of the given origins
// (scheme://host[:port], or "*") may upload, download, and read the ETag,
// which multipart uploads need. R2 takes up to 30 s to apply it.
// Errors: [objectstore.ErrUnavailable].
func (s *Store) PutCORS(ctx context.Context, origins []string) error {
	if len(origins) == 0 {
		return fmt.Errorf("objectstore: put cors %q: no origins", s.bucket)
	}
	_, err := s.client.PutBucketCors(ctx, &awss3.PutBucketCorsInput{
		Bucket: &s.bucket,
		CORSConfiguration: &types.CORSConfiguration{CORSRules: []types.CORSRule{{
			AllowedOrigins: origins,
			AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPut},
			AllowedHeaders: []string{"Content-Type", "If-None-Match", "Range"},
			ExposeHeaders:  []string{"ETag", "Content-Length", "Content-Range", "Accept-Ranges"},
			MaxAgeSeconds:  aws.Int32(3600),
		}}},
	})
	return classify("put cors", s.bucket, err)
}

func check(cfg Config) error {
	switch {
	case cfg.Bucket == "":
		return errors.New("objectstore: no bucket given")
	case cfg.AccessKeyID == "" || cfg.SecretAccessKey == "":
		return errors.New("objectstore: no access key given")
	}
	for _, endpoint := range []string{cfg.Endpoint, cfg.PublicEndpoint} {
		if endpoint == "" {
			continue
		}
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("objectstore: the endpoint must look like https://host[:port]")
		}
	}
	return nil
}

// optional is nil for the empty string: the SDK sends every header it is given.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
