// Command bench measures tcoder against named peers in the same run, prints a
// table of ratios and writes it as JSON. It uses the real binary, the real
// parts and loopback only.
//
//	go run ./bench -media DIR [GROUP[/PART] ...]
//
// Exit code 1 says that a run was not valid or a bar was missed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Result is one measured figure. Peer says what it is divided by, Bar what
// is asked of it; empty where nothing is asked.
type Result struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Peer  string  `json:"peer"`
	Bar   string  `json:"bar"`
	OK    bool    `json:"ok"`
	// Noisy says that other processes were busy during the run.
	Noisy bool `json:"noisy,omitempty"`
}

// setting is what a group may use.
type setting struct {
	binary string // of tcoder
	media  string // folder of the clips
	rounds int    // interleaved repetitions; medians are reported
	work   string // scratch folder
	noisy  bool   // a busy machine is accepted, and said in the table
	part   string // of the group; empty for all
	short  bool   // clips of a few seconds: to see that a part works, not what it gives
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func run(ctx context.Context) error {
	groups := map[string]func(context.Context, setting) ([]Result, error){
		"pool":      pool,
		"scheduler": scheduler,
		"transcode": transcode,
	}
	var s setting
	var out, fleet string
	var markdown bool
	flag.StringVar(&s.binary, "binary", "bin/tcoder", "the tcoder binary")
	flag.StringVar(&s.media, "media", "", "folder of the bench clips, as scripts/fetch-bench-media prints it")
	flag.IntVar(&s.rounds, "rounds", 3, "interleaved repetitions")
	flag.StringVar(&out, "json", ".tcoder/bench.json", "where the results go")
	flag.BoolVar(&s.noisy, "noisy", false, "accept that other processes are busy, and mark the figures")
	flag.BoolVar(&s.short, "short", false, "take clips of a few seconds, to see that it works: the figures mean little")
	flag.BoolVar(&markdown, "markdown", false, "print the table as Markdown")
	flag.StringVar(&fleet, "fleet", "", "be the workers of a control plane at this URL: what a benchmark starts by itself")
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 {
		for name := range groups {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	var err error
	if s.binary, err = filepath.Abs(s.binary); err != nil {
		return fmt.Errorf("binary: %w", err)
	}
	if s.media != "" { // commands run in folders of their own
		if s.media, err = filepath.Abs(s.media); err != nil {
			return fmt.Errorf("media: %w", err)
		}
	}
	if s.work, err = os.MkdirTemp("", "tcoder-bench-"); err != nil {
		return fmt.Errorf("scratch folder: %w", err)
	}
	defer os.RemoveAll(s.work) //nolint:errcheck // a leftover in the temporary folder harms nobody
	if fleet != "" {
		return beFleet(ctx, s, fleet)
	}

	var results []Result
	for _, name := range names {
		name, part, _ := strings.Cut(name, "/")
		s.part = part
		group, known := groups[name]
		if !known {
			return fmt.Errorf("no group is called %q", name)
		}
		got, err := group(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		results = append(results, got...)
	}
	if err := write(out, results); err != nil {
		return err
	}

	return report(results, markdown)
}

func write(path string, results []Result) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("results: %w", err)
	}

	return nil
}

// report prints the table, and fails if a bar was missed.
func report(results []Result, markdown bool) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := "%s\t%s\t%s\t%s\t%s\t%s\n"
	if markdown {
		table = tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
		row = "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n"
	}
	fmt.Fprintf(table, row, "NAME", "VALUE", "UNIT", "PEER", "BAR", "OK")
	if markdown {
		fmt.Fprintf(table, row, "---", "---", "---", "---", "---", "---")
	}
	var missed []string
	for _, r := range results {
		verdict := "yes"
		switch {
		case !r.OK:
			verdict = "NO"
			missed = append(missed, r.Name)
		case r.Bar == "":
			verdict = ""
		}
		if r.Noisy {
			verdict = strings.TrimSpace(verdict + " NOISY")
		}
		fmt.Fprintf(table, row, r.Name, figure(r.Value), r.Unit, r.Peer, r.Bar, verdict)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("table: %w", err)
	}
	if len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, ", "))
	}

	return nil
}

// figure writes a value with as many digits as mean something.
func figure(value float64) string {
	if math.Abs(value) >= 1000 {
		return strconv.FormatFloat(value, 'f', 0, 64)
	}

	return strconv.FormatFloat(value, 'g', 3, 64)
}
