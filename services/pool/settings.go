package pool

import (
	"context"
	"reflect"

	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	"github.com/tcoder-dev/tcoder/internal/pipeline"
	"github.com/tcoder-dev/tcoder/services/mapper"
)

// changeTries bounds how often a change meets another one of the same moment.
const changeTries = 10

var (
	errFixed = &pipeline.Error{
		Reason: pipeline.ReasonPoolFixed, Message: "This pool makes no machines.",
		Remedy: "Start the control plane with --pool process or --pool fly.",
	}
	errContended = &pipeline.Error{
		Reason: pipeline.ReasonStateUnavailable, Message: "Too many others change the pool at this moment.", Remedy: "Try again.",
	}
)

// UpdatePool changes settings of the pool. Two changes at once both take
// effect: who comes second decides on top of the first.
func (s *Service) UpdatePool(ctx context.Context, req *tcoderv1.UpdatePoolRequest) (*tcoderv1.UpdatePoolResponse, error) {
	if s.cfg.Provider == providerNone {
		return nil, errFixed
	}
	asked := mapper.PoolChangeFromProto(req)
	for range changeTries {
		view, err := s.deps.Store.ReadPool(ctx)
		if err != nil {
			return nil, err
		}
		change := view.Change.Then(asked)
		settings := change.Of(s.cfg.Settings)
		if err := s.checkSettings(settings); err != nil {
			return nil, err
		}
		done, err := s.deps.Store.ChangePool(ctx, change, view.Version)
		if err != nil {
			return nil, err
		}
		if done {
			s.deps.Log.InfoContext(ctx, "pool settings changed", "settings", settings)
			signal(s.changed)
			return &tcoderv1.UpdatePoolResponse{Settings: mapper.PoolSettingsToProto(settings)}, nil
		}
	}
	return nil, errContended
}

func (s *Service) checkSettings(settings pipeline.PoolSettings) error {
	if err := settings.Check(); err != nil || s.cfg.CheckSettings == nil {
		return err
	}
	return s.cfg.CheckSettings(settings)
}

// followSettings keeps this replica at the settings that are in force.
func (s *Service) followSettings(ctx context.Context) {
	if s.cfg.Provider == providerNone {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
			callCtx, cancel := context.WithTimeout(ctx, callTimeout)
			view, err := s.deps.Store.ReadPool(callCtx)
			cancel()
			if err != nil {
				if ctx.Err() == nil {
					s.deps.Log.WarnContext(ctx, "pool settings can't be read, trying again", "error", err)
					sleep(ctx, maxRetry)
					signal(s.changed)
				}
				continue
			}
			settings := view.Change.Of(s.cfg.Settings)
			if !reflect.DeepEqual(settings, *s.settings.Load()) {
				s.settings.Store(&settings)
				s.watchers.look()
			}
		}
	}
}
