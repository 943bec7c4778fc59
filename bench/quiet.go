package main

import (
	"fmt"
	"os"
)

const (
	// foreignLimit is how much of a core others may use while something is measured.
	foreignLimit = 0.15
	// quietRepeats is how often a part may measure again because the machine was busy.
	quietRepeats = 4
)

// quiet measures while the machine does nothing else.
type quiet struct {
	accept  bool
	repeats int
	noisy   bool // something was accepted that others disturbed
}

func newQuiet(s setting) *quiet { return &quiet{accept: s.noisy, repeats: quietRepeats} }

// run measures, and again if others were busy meanwhile. Once that has
// happened too often the run isn't valid.
func (q *quiet) run(name string, measure func() error) error {
	for {
		others, err := watchForeign()
		if err != nil {
			return err
		}
		if err := measure(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		cores, err := others.cores()
		switch {
		case err != nil:
			return err
		case cores <= foreignLimit:
			return nil
		case q.accept:
			q.noisy = true

			return nil
		case q.repeats == 0:
			return fmt.Errorf("invalid: other processes used %.0f %% of a core during %s, again and again: "+
				"stop them, or let the table say NOISY with -noisy", 100*cores, name)
		}
		q.repeats--
		fmt.Fprintf(os.Stderr, "%s: others used %.0f %% of a core, once more\n", name, 100*cores)
	}
}
