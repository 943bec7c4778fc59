package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

const reasonPrefix = "ERROR_REASON_"

// jobsRetryCommand starts one job again, or all that failed.
func jobsRetryCommand(program *cli.Program) *cobra.Command {
	var b *base
	var reasons []string
	var failed bool
	var limit int
	cmd := &cobra.Command{
		Use:   "retry JOB | retry --failed",
		Short: "Start a failed or canceled job again, or all that failed",
		Long: `Start a failed or canceled job again, or all that failed.

With --failed there is a line per job, newest first, and with --json a document
per line. A job that can't start again, because its source is gone, is told and
passed over; the exit code is 1 then. A full queue ends the command: what is left
is still there for the next time.`,
		Example: "  tcoder jobs retry 01JD...\n" +
			"  tcoder jobs retry --failed --reason QUARANTINED --limit 100",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if failed == (len(args) == 1) {
				return cli.Usagef("retry needs a job, or --failed")
			}
			if !failed && (len(reasons) > 0 || limit != 0) {
				return cli.Usagef("--reason and --limit belong to --failed")
			}
			client, err := b.connect()
			if err != nil {
				return err
			}
			filter := tcoder.JobFilter{States: []tcoderv1.JobState{tcoderv1.JobState_JOB_STATE_FAILED}}
			if filter.Reasons, err = parseReasons(reasons); err != nil {
				return err
			}
			ctx, stop := b.Interruptible(cmd.Context())
			defer stop()
			if failed {
				return b.redrive(ctx, client, filter, limit)
			}
			job, err := client.RetryJob(ctx, args[0])

			return b.changed(job, err)
		},
	}
	b = newBase(program, cmd)
	cmd.Flags().BoolVar(&failed, "failed", false, "start all jobs again that failed")
	addReasonFlag(cmd, &reasons)
	cmd.Flags().IntVar(&limit, "limit", 0, "most jobs to start again (0: all)")

	return cmd
}

// redrive starts the jobs of a filter again, each after the run that was
// listed: one that somebody else started meanwhile isn't started twice.
func (b *base) redrive(ctx context.Context, client *tcoder.Client, filter tcoder.JobFilter, limit int) error {
	tried, refused := 0, 0
	for job, err := range client.ListJobs(ctx, filter) {
		if err != nil {
			return redriveError(err, tried)
		}
		again, err := client.RetryJob(ctx, job.GetId(), tcoder.AfterRun(job.GetRun()))
		if stops(ctx, err) {
			return redriveError(err, tried)
		}
		if err != nil {
			refused++
		}
		if err := b.retried(job.GetId(), again, err); err != nil {
			return err
		}
		if tried++; tried == limit {
			break
		}
	}
	if refused > 0 {
		return &cli.ShownError{Err: fmt.Errorf("%d of %s can't start again", refused, count(tried, "job"))}
	}
	if tried == 0 && !b.json {
		b.Printf("no job to start again\n")
	}

	return nil
}

// redriveError is an error after some lines of the answer.
func redriveError(err error, tried int) error {
	if tried == 0 {
		return err
	}

	return &cli.ShownError{Err: err}
}

// stops reports whether an error is no matter of one job.
func stops(ctx context.Context, err error) bool {
	var refusal *tcoder.Error
	switch {
	case err == nil:
		return false
	case ctx.Err() != nil, !errors.As(err, &refusal):
		return true
	default:
		switch refusal.Reason {
		case tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_FOUND, tcoderv1.ErrorReason_ERROR_REASON_JOB_TERMINAL,
			tcoderv1.ErrorReason_ERROR_REASON_JOB_NOT_TERMINAL, tcoderv1.ErrorReason_ERROR_REASON_INPUT_MISSING:
			return false
		default:
			return true
		}
	}
}

// retried tells what became of one job.
func (b *base) retried(id string, job *tcoderv1.Job, err error) error {
	switch {
	case err != nil && b.json:
		return b.PrintFailureLine(id, err)
	case err != nil:
		b.Printf("%s %s\n", id, err)
	case b.json:
		return b.PrintMessageLine(&tcoderv1.RetryJobResponse{Job: job})
	default:
		b.Printf("%s %s, run %d\n", id, name(job.GetState(), jobStatePrefix), job.GetRun())
	}

	return nil
}

func addReasonFlag(cmd *cobra.Command, reasons *[]string) {
	cmd.Flags().StringSliceVar(reasons, "reason", nil, "only jobs that ended for these reasons, such as QUARANTINED,ENCODE_FAILED")
	completeFlag(cmd, "reason", func(context.Context) []string {
		var names []string
		for number := range tcoderv1.ErrorReason_name {
			if number != 0 {
				names = append(names, name(tcoderv1.ErrorReason(number), reasonPrefix))
			}
		}

		return names
	})
}

func parseReasons(names []string) ([]tcoderv1.ErrorReason, error) {
	var reasons []tcoderv1.ErrorReason
	for _, text := range names {
		number, ok := tcoderv1.ErrorReason_value[reasonPrefix+strings.ToUpper(text)]
		if !ok || number == 0 {
			return nil, cli.Usagef("unknown reason %q: use one such as QUARANTINED, as jobs show it", text)
		}
		reasons = append(reasons, tcoderv1.ErrorReason(number))
	}

	return reasons, nil
}
