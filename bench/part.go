package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// part is a piece of a group that can be measured by itself.
type part struct {
	name string
	run  func(context.Context, setting, *quiet) ([]Result, error)
}

// measureParts measures the part that is asked for, or all of them in order,
// and names what they give after the group.
func measureParts(ctx context.Context, s setting, group string, parts []part) ([]Result, error) {
	var results []Result
	known := false
	for _, p := range parts {
		if s.part != "" && s.part != p.name {
			continue
		}
		known = true
		start := time.Now()
		q := newQuiet(s)
		got, err := p.run(ctx, s, q)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		for i := range got {
			got[i].Name = group + "/" + got[i].Name
			got[i].Noisy = q.noisy
			// A long run that is cut off has told what it had.
			fmt.Fprintf(os.Stderr, "%s: %s %s %s\n", group, got[i].Name, figure(got[i].Value), got[i].Unit)
		}
		results = append(results, got...)
		fmt.Fprintf(os.Stderr, "%s: %s took %.0f s\n", group, p.name, time.Since(start).Seconds())
	}
	if !known {
		return nil, errors.New("no part is called " + s.part)
	}

	return results, nil
}
