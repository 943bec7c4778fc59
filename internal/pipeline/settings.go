package pipeline

import (
	"fmt"
	"time"
)

// PoolSettings are what can be changed of a pool while it runs.
type PoolSettings struct {
	MinWarm     int           // machines that are kept running without work
	Limit       int           // the most machines there may be
	Idle        time.Duration // how long a worker waits for work before it asks to leave; 0: for ever
	KeepStopped int           // stopped machines that are kept for reuse
	Regions     []string      // where machines are made, the preferred first
	EncodeSize  string        // of a machine that is made for encodes; empty is the provider's default
	LightSize   string        // of one that is made for lighter tasks; empty is EncodeSize
}

// PoolChange is what was changed of the settings that a control plane was
// started with; nil is unchanged.
type PoolChange struct {
	MinWarm     *int           `json:"min_warm,omitempty"`
	Limit       *int           `json:"limit,omitempty"`
	Idle        *time.Duration `json:"idle,omitempty"`
	KeepStopped *int           `json:"keep_stopped,omitempty"`
	Regions     *[]string      `json:"regions,omitempty"`
	EncodeSize  *string        `json:"encode_size,omitempty"`
	LightSize   *string        `json:"light_size,omitempty"`
}

// Then returns the change that c and then next make.
func (c PoolChange) Then(next PoolChange) PoolChange {
	replace(&c.MinWarm, next.MinWarm)
	replace(&c.Limit, next.Limit)
	replace(&c.Idle, next.Idle)
	replace(&c.KeepStopped, next.KeepStopped)
	replace(&c.Regions, next.Regions)
	replace(&c.EncodeSize, next.EncodeSize)
	replace(&c.LightSize, next.LightSize)

	return c
}

func replace[T any](field **T, with *T) {
	if with != nil {
		*field = with
	}
}

// Of returns the settings that a change makes of those at the start.
func (c PoolChange) Of(s PoolSettings) PoolSettings {
	set(&s.MinWarm, c.MinWarm)
	set(&s.Limit, c.Limit)
	set(&s.Idle, c.Idle)
	set(&s.KeepStopped, c.KeepStopped)
	set(&s.Regions, c.Regions)
	set(&s.EncodeSize, c.EncodeSize)
	set(&s.LightSize, c.LightSize)

	return s
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

// Check returns what is wrong with settings, as an *Error with
// ReasonRequestInvalid.
func (s PoolSettings) Check() error {
	var fields []FieldViolation

	if s.MinWarm > s.Limit {
		fields = append(fields, FieldViolation{
			Field:       "min_warm",
			Description: fmt.Sprintf("%d machines to keep warm are more than the limit of %d", s.MinWarm, s.Limit),
		})
	}

	for _, field := range []struct {
		name  string
		value int64
	}{
		{"min_warm", int64(s.MinWarm)},
		{"machine_limit", int64(s.Limit)},
		{"keep_stopped", int64(s.KeepStopped)},
		{"idle_threshold", int64(s.Idle)},
	} {
		if field.value < 0 {
			fields = append(fields, FieldViolation{Field: field.name, Description: "it is negative"})
		}
	}

	if len(fields) == 0 {
		return nil
	}

	return &Error{Reason: ReasonRequestInvalid, Message: "The pool can't have these settings.", Fields: fields}
}
