package job

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// A page token says where the next page begins, and for which list. It is
// opaque: its form may change with its version, its first byte. It is no
// secret and grants nothing; its digest only finds what was garbled, or used
// with another filter than it was made for.
const (
	pageVersion     = 1
	pageDigestBytes = 8
)

// pageToken returns the token of the page after position, of the list that
// the parts of its filter name.
func pageToken(position string, filter ...string) string {
	digest := pageDigest(position, filter)

	return base64.RawURLEncoding.EncodeToString(append(append([]byte{pageVersion}, digest...), position...))
}

// pagePosition returns the position of a token; empty for an empty token,
// which is the first page. Errors: PAGE_TOKEN_INVALID.
func pagePosition(token string, filter ...string) (string, error) {
	if token == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) <= 1+pageDigestBytes || raw[0] != pageVersion {
		return "", errPageToken()
	}
	position := string(raw[1+pageDigestBytes:])
	if string(raw[1:1+pageDigestBytes]) != string(pageDigest(position, filter)) {
		return "", errPageToken()
	}

	return position, nil
}

func pageDigest(position string, filter []string) []byte {
	sum := sha256.Sum256([]byte(strings.Join(append(slices.Clip(filter), position), "\x00")))

	return sum[:pageDigestBytes]
}

func errPageToken() error {
	return &pipeline.Error{
		Reason: pipeline.ReasonPageTokenInvalid, Message: "the page token was not made for this list",
		Fields: []pipeline.FieldViolation{{Field: "page_token", Description: "must be a next_page_token of the same request"}},
	}
}
