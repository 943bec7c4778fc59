package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/tcoder-dev/tcoder/internal/objectstore"
)

// classify turns an error of the SDK into one of the port. It keeps only the
// code, the status and the network cause: the SDK's own text may repeat
// request details that don't belong into logs.
func classify(op, key string, err error) error {
	if err == nil {
		return nil
	}
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ended) {
			return fmt.Errorf("objectstore: %s %q: %w", op, key, ended)
		}
	}
	errCode, errStatus := code(err), status(err)
	if errStatus == 0 {
		return fmt.Errorf("objectstore: %s %q: %w", op, key, transportError(err))
	}
	if sentinel := sentinelOf(errCode, errStatus); sentinel != nil {
		return fmt.Errorf("objectstore: %s %q: %w (HTTP %d %s)", op, key, sentinel, errStatus, errCode)
	}
	return fmt.Errorf("objectstore: %s %q: refused (HTTP %d %s)", op, key, errStatus, errCode)
}

func sentinelOf(errCode string, errStatus int) error {
	switch errCode {
	case "NoSuchKey", "NotFound": // HEAD has no body for a code, the SDK fills in the second
		return objectstore.ErrNotFound
	case "NoSuchUpload":
		return objectstore.ErrUploadNotFound
	case "InvalidPart", "InvalidPartOrder", "EntityTooSmall":
		return objectstore.ErrInvalidPart
	case "SlowDown", "RequestTimeout", "RequestTimeTooSkewed":
		return objectstore.ErrUnavailable
	}
	switch {
	case errStatus == http.StatusPreconditionFailed:
		return objectstore.ErrPrecondition
	case errStatus >= http.StatusInternalServerError,
		errStatus == http.StatusTooManyRequests,
		errStatus == http.StatusUnauthorized,
		errStatus == http.StatusForbidden,
		errStatus == http.StatusNotFound, // of the bucket or, at versitygw, of the access key
		errStatus == http.StatusConflict: // two conditional writes at once: S3 asks to try again
		return objectstore.ErrUnavailable
	}
	return nil
}

// transportError describes a failure without an answer. A request that could
// not even be built is wrong, and no fault of the network.
func transportError(err error) error {
	if _, ok := errors.AsType[*smithy.SerializationError](err); ok {
		return errors.New("request can't be built, is the key empty?")
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return fmt.Errorf("%w: %w", objectstore.ErrUnavailable, rootNetError(err))
	}
	return fmt.Errorf("%w: no usable answer", objectstore.ErrUnavailable)
}

// rootNetError is the network error itself, without the URL around it.
func rootNetError(err error) error {
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		return opErr
	}
	if dnsErr, ok := errors.AsType[*net.DNSError](err); ok {
		return dnsErr
	}
	return errors.New("connection failed")
}

func code(err error) string {
	if apiErr, ok := errors.AsType[smithy.APIError](err); ok {
		return apiErr.ErrorCode()
	}
	return ""
}

func status(err error) int {
	if respErr, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		return respErr.HTTPStatusCode()
	}
	return 0
}
