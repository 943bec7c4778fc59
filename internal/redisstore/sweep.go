package redisstore

import (
	"context"
	"time"

	"github.com/tcoder-dev/tcoder/internal/pipeline"
)

// Sweep implements [pipeline.SweepStore].
func (s *Store) Sweep(ctx context.Context, r pipeline.SweepRequest) (pipeline.Swept, error) {
	args := make([]any, 0, 7+len(r.Attached))
	args = append(args, r.Replica, millis(r.LeaderTTL), millis(r.Lease), r.Retry.MaxLosses, millis(r.Retention), r.Term, digit(r.Busy))

	for _, worker := range r.Attached {
		args = append(args, worker)
	}

	reply, err := s.callRows(ctx, 8, "sweep", []string{s.keys.purges}, args...)
	if err != nil {
		return pipeline.Swept{}, err
	}

	swept := pipeline.Swept{
		Leader: asInt(reply[0]) == 1, Requeued: int(asInt(reply[1])), Dead: int(asInt(reply[2])),
		Retired: int(asInt(reply[3])), Woken: int(asInt(reply[4])), NextDue: time.Duration(asInt(reply[5])) * time.Millisecond,
		Term: asInt(reply[7]),
	}

	list := asList(reply[6])
	for i := 0; i+2 < len(list); i += 3 {
		d := pipeline.Duty{Kind: pipeline.DutyKind(asString(list[i])), ID: asString(list[i+1])}

		if about := asString(list[i+2]); d.Kind == pipeline.DutyPurge {
			r := reader{raw: about}
			d.Project, d.Source = readSource(&r)
			d.Unreadable = r.finish("a purge") // the others are done
		} else {
			d.Project = about
		}

		swept.Duties = append(swept.Duties, d)
	}

	return swept, nil
}

// EndDuty implements [pipeline.SweepStore].
func (s *Store) EndDuty(ctx context.Context, d pipeline.Duty) error {
	_, err := s.call(ctx, "end_duty", []string{s.keys.purges, s.keys.upload(d.ID)}, string(d.Kind), d.ID)

	return err
}

// Resign implements [pipeline.SweepStore].
func (s *Store) Resign(ctx context.Context, replica string) error {
	_, err := s.call(ctx, "resign", nil, replica)

	return err
}
