package worker

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/mediatest"
	"github.com/tcoder-dev/tcoder/worker/ffmpeg"
)

// partsPlane is a control plane that writes objects in parts of 10 bytes.
type partsPlane struct {
	store *store

	mu    sync.Mutex
	steps []string // what was done
}

func (p *partsPlane) step(
	_ context.Context, object *tcoderv1.EncodedObject, step *tcoderv1.PartsStep,
) (*tcoderv1.SignResponse, error) {
	const size = 10

	p.mu.Lock()
	defer p.mu.Unlock()

	part := func(n int) string { return fmt.Sprintf("%s%s.part%d", folder, object.GetName(), n) }

	switch {
	case step.GetUploadId() == "":
		p.steps = append(p.steps, "begin")

		return &tcoderv1.SignResponse{Parts: &tcoderv1.PartsPlan{UploadId: "id", PartSizeBytes: size}}, nil
	case step.GetAbort():
		p.steps = append(p.steps, "abort")

		return &tcoderv1.SignResponse{}, nil
	case len(step.GetEtags()) > 0:
		var whole []byte

		for i, etag := range step.GetEtags() {
			content, _ := p.store.get(part(i + 1))
			if p.store.etagOf(part(i+1)) != etag {
				return nil, &signRefusedError{failure: &tcoderv1.Failure{Reason: tcoderv1.ErrorReason_ERROR_REASON_OUTPUT_INVALID}}
			}

			whole = append(whole, content...)
		}

		p.store.put(folder+object.GetName(), whole)
		p.steps = append(p.steps, "complete")

		return &tcoderv1.SignResponse{}, nil
	default:
		answer := &tcoderv1.SignResponse{}
		for n := int(step.GetFirst()); n < int(step.GetFirst()+step.GetCount()); n++ {
			rest := int(object.GetSizeBytes()) - (n-1)*size
			answer.Requests = append(answer.Requests, p.store.signPut(part(n), &tcoderv1.EncodedObject{SizeBytes: uint64(min(size, rest))}))
		}

		return answer, nil
	}
}

// inParts uploads a large and a small file, of which the store takes only the
// small one whole.
func inParts(t *testing.T, interfere func(w http.ResponseWriter, r *http.Request) bool) (*partsPlane, []byte, error) {
	t.Helper()

	b := setupWork(t, mediatest.Clip(t, mediatest.Text))
	b.store.interfere(interfere)

	dir, plane := t.TempDir(), &partsPlane{store: b.store}
	content := bytes.Repeat([]byte("0123456789abcdef"), 25) // more parts than are signed at a time
	uploads := newUploader(b.store.client(t), b.sign, &backlog{dir: dir}, testPacing(), func(error) {}, func(string) {})
	uploads.maxPut, uploads.step = 15, plane.step

	for name, data := range map[string][]byte{"large.mp4": append(content, '!'), "small.mp4": content[:15]} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		uploads.add(&tcoderv1.EncodedObject{Name: name, SizeBytes: uint64(len(data)), ContentType: "video/mp4"})
	}

	uploads.close()

	err := uploads.run(t.Context())
	stored, _ := b.store.get(folder + "large.mp4")

	if err == nil {
		require.Equal(t, string(content)+"!", string(stored))
		require.Contains(t, b.store.written(), folder+"small.mp4")
		require.Equal(t, 1, b.asked, "only the small one is signed whole")
	}

	return plane, stored, err
}

// TestUploadParts guarantees that a file that the store doesn't take whole
// arrives in parts, though some are refused and sent again.
func TestUploadParts(t *testing.T) {
	t.Parallel()

	var refused atomic.Bool

	plane, _, err := inParts(t, func(w http.ResponseWriter, r *http.Request) bool {
		expired := strings.HasSuffix(r.URL.Path, "part7") && !refused.Swap(true)
		if expired {
			http.Error(w, "AccessDenied: Request has expired", http.StatusForbidden)
		}

		return expired
	})
	require.NoError(t, err)
	require.Equal(t, []string{"begin", "complete"}, plane.steps)
}

// TestUploadPartsFails guarantees that parts are given up when one can't be
// written, and no object is made of the others.
func TestUploadPartsFails(t *testing.T) {
	t.Parallel()

	plane, stored, err := inParts(t, func(w http.ResponseWriter, r *http.Request) bool {
		broken := strings.HasSuffix(r.URL.Path, "part3")
		if broken {
			http.Error(w, "MethodNotAllowed", http.StatusMethodNotAllowed)
		}

		return broken
	})

	var fault *ffmpeg.Fault

	require.ErrorAs(t, err, &fault)
	require.Equal(t, tcoderv1.ErrorReason_ERROR_REASON_TRANSFER_FAILED, fault.Reason)
	require.Empty(t, stored)
	require.Equal(t, []string{"begin", "abort"}, plane.steps)
}
