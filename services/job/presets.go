package job

import (
	"context"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/media"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// ListPresets lists the presets with everything they resolve to.
func (s *Service) ListPresets(context.Context, *tcoderv1.ListPresetsRequest) (*tcoderv1.ListPresetsResponse, error) {
	res := &tcoderv1.ListPresetsResponse{}
	for _, p := range media.Presets() {
		res.Presets = append(res.Presets, mapper.PresetToProto(p))
	}

	return res, nil
}
