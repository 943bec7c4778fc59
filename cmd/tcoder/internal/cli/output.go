package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// PrintMessage prints a message as one JSON document, as the server's JSON API
// would send it.
func (p *Program) PrintMessage(m proto.Message) error {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}

	return p.PrintJSON(json.RawMessage(raw))
}

// PrintMessageLine prints a message as one line of JSON.
func (p *Program) PrintMessageLine(m proto.Message) error {
	raw, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}

	return p.printLine(raw)
}

// PrintFailureLine prints what one job of many was refused for as one line of JSON.
func (p *Program) PrintFailureLine(jobID string, err error) error {
	raw, err := json.Marshal(struct {
		JobID string  `json:"jobId"`
		Error failure `json:"error"`
	}{jobID, describe(err)})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}

	return p.printLine(raw)
}

func (p *Program) printLine(raw []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	p.Printf("%s\n", line.Bytes())

	return nil
}

// PrintJSON prints a value as one JSON document.
func (p *Program) PrintJSON(value any) error {
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	p.Printf("%s\n", raw)

	return nil
}

// PrintTable prints rows in aligned columns, below a header.
func (p *Program) PrintTable(header string, rows [][]any) error {
	table := tabwriter.NewWriter(p.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, header)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(table, "\t")
			}
			fmt.Fprint(table, cell)
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}

	return nil
}
