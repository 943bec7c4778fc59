package redisstore

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Sweep implements [pipeline.SweepStore].
func (s *Store) Sweep(ctx context.Context, r pipeline.SweepRequest) (pipeline.Swept, error) {
	reply, err := s.callRows(ctx, 6, "sweep", []string{s.keys.purges},
		r.Replica, millis(r.LeaderTTL), millis(r.Lease), r.Retry.MaxLosses)
	if err != nil {
		return pipeline.Swept{}, err
	}

	swept := pipeline.Swept{
		Leader: asInt(reply[0]) == 1, Requeued: int(asInt(reply[1])), Dead: int(asInt(reply[2])),
		Woken: int(asInt(reply[3])), NextDue: time.Duration(asInt(reply[4])) * time.Millisecond,
	}

	list := asList(reply[5])
	for i := 0; i+2 < len(list); i += 3 {
		d := pipeline.Duty{Kind: pipeline.DutyKind(asString(list[i])), ID: asString(list[i+1])}

		if about := asString(list[i+2]); d.Kind == pipeline.DutyPurge {
			var spec jobSpec
			if err := decode(about, &spec); err != nil {
				return pipeline.Swept{}, err
			}

			d.Project, d.Source = spec.Project, spec.Source
		} else {
			d.Project = about
		}

		swept.Duties = append(swept.Duties, d)
	}

	return swept, nil
}

// EndDuty implements [pipeline.SweepStore].
func (s *Store) EndDuty(ctx context.Context, d pipeline.Duty) error {
	_, err := s.call(ctx, "end_duty", []string{s.keys.purges, s.keys.upload(d.ID), s.keys.job(d.ID)}, string(d.Kind), d.ID)

	return err
}

// Resign implements [pipeline.SweepStore].
func (s *Store) Resign(ctx context.Context, replica string) error {
	_, err := s.call(ctx, "resign", nil, replica)

	return err
}
