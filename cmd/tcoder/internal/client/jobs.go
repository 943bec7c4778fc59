package client

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

const jobStatePrefix = "JOB_STATE_"

func jobsCommand(program *cli.Program) *cobra.Command {
	return cli.Group("jobs", "Look at jobs, follow and change them",
		jobsListCommand(program),
		jobCommand(program, "get", "Show a job with its plan, outputs and attempts", (*base).getJob),
		jobsWatchCommand(program),
		jobCommand(program, "cancel", "Stop a job that hasn't ended", (*base).cancelJob),
		jobsRetryCommand(program),
		jobCommand(program, "rm", "Remove a job that has ended, with its source and outputs", (*base).removeJob),
		jobsDownloadCommand(program),
	)
}

// jobCommand makes a command that does one thing with one job.
func jobCommand(program *cli.Program, use, short string,
	do func(*base, context.Context, *tcoder.Client, string) error,
) *cobra.Command {
	var b *base
	cmd := &cobra.Command{
		Use: use + " JOB", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := b.connect()
			if err != nil {
				return err
			}
			ctx, stop := b.Interruptible(cmd.Context())
			defer stop()

			return do(b, ctx, client, args[0])
		},
	}
	b = newBase(program, cmd)

	return cmd
}

func jobsListCommand(program *cli.Program) *cobra.Command {
	var b *base
	var states, reasons []string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List jobs, newest first", Args: cobra.NoArgs,
		Example: "  tcoder jobs list --state running,pending\n" +
			"  tcoder jobs list --state failed --reason QUARANTINED",
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := b.connect()
			if err != nil {
				return err
			}
			var filter tcoder.JobFilter
			if filter.States, err = parseStates(states); err != nil {
				return err
			}
			if filter.Reasons, err = parseReasons(reasons); err != nil {
				return err
			}
			ctx, stop := b.Interruptible(cmd.Context())
			defer stop()

			return b.listJobs(ctx, client, filter, limit)
		},
	}
	b = newBase(program, cmd)
	cmd.Flags().StringSliceVar(&states, "state", nil, "only jobs in these states, such as running,pending")
	addReasonFlag(cmd, &reasons)
	cmd.Flags().IntVar(&limit, "limit", 50, "most jobs to list (0: all)")
	completeFlag(cmd, "state", func(context.Context) []string { return stateNames() })

	return cmd
}

func stateNames() []string {
	var names []string
	for number := range int32(len(tcoderv1.JobState_name)) {
		if number != 0 {
			names = append(names, strings.ToLower(name(tcoderv1.JobState(number), jobStatePrefix)))
		}
	}

	return names
}

func parseStates(names []string) ([]tcoderv1.JobState, error) {
	var states []tcoderv1.JobState
	for _, text := range names {
		number, ok := tcoderv1.JobState_value[jobStatePrefix+strings.ToUpper(text)]
		if !ok || number == 0 {
			return nil, cli.Usagef("unknown state %q: use %s", text, strings.Join(stateNames(), ", "))
		}
		states = append(states, tcoderv1.JobState(number))
	}

	return states, nil
}

func (b *base) listJobs(ctx context.Context, client *tcoder.Client, filter tcoder.JobFilter, limit int) error {
	list := &tcoderv1.ListJobsResponse{}
	for job, err := range client.ListJobs(ctx, filter) {
		if err != nil {
			return err
		}
		list.Jobs = append(list.Jobs, job)
		if len(list.GetJobs()) == limit {
			break
		}
	}
	if b.json {
		return b.PrintMessage(list)
	}
	var rows [][]any
	for _, job := range list.GetJobs() {
		rows = append(rows, []any{
			job.GetId(), name(job.GetState(), jobStatePrefix), presetOf(job),
			fmt.Sprintf("%.0f%%", job.GetProgress().GetPercent()), formatAge(job.GetTimes().GetCreatedAt()),
			orDash(job.GetSource().GetFilename()), failureOf(job),
		})
	}

	return b.PrintTable("JOB\tSTATE\tPRESET\tDONE\tAGE\tFILE\tREASON", rows)
}

// presetOf is the name of a job's preset.
func presetOf(job *tcoderv1.Job) string {
	if preset := job.GetSpec().GetPreset(); preset != "" {
		return preset
	}

	return "default"
}

// failureOf is the reason of a job's failure, or a dash.
func failureOf(job *tcoderv1.Job) string {
	if job.GetFailure() == nil {
		return "-"
	}

	return tcoder.ReasonName(job.GetFailure().GetReason())
}

func (b *base) getJob(ctx context.Context, client *tcoder.Client, id string) error {
	job, err := client.GetJob(ctx, id)
	if err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(job)
	}

	return b.printJob(job)
}

func (b *base) cancelJob(ctx context.Context, client *tcoder.Client, id string) error {
	job, err := client.CancelJob(ctx, id)

	return b.changed(job, err)
}

// changed tells what became of a job.
func (b *base) changed(job *tcoderv1.Job, err error) error {
	if err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(job)
	}
	b.Printf("%s %s\n", job.GetId(), name(job.GetState(), jobStatePrefix))

	return nil
}

func (b *base) removeJob(ctx context.Context, client *tcoder.Client, id string) error {
	if err := client.DeleteJob(ctx, id); err != nil {
		return err
	}
	if b.json {
		return b.PrintMessage(&tcoderv1.DeleteJobResponse{})
	}
	b.Printf("%s removed\n", id)

	return nil
}

func jobsWatchCommand(program *cli.Program) *cobra.Command {
	cmd := jobCommand(program, "watch", "Follow a job to its end", (*base).watchJob)
	cmd.Long = `Follow a job to its end. The exit code is 1 if it failed or was canceled.

With --json each change is one line: a document with the job as it is, and the
event if there is one.`

	return cmd
}

func (b *base) watchJob(ctx context.Context, client *tcoder.Client, id string) error {
	display := newDisplay(b.Stdout)
	var last *tcoderv1.Job
	for update, err := range client.Watch(ctx, id) {
		if err != nil {
			display.clear()

			return err
		}
		last = update.Job
		if !b.json {
			display.jobUpdate(update)

			continue
		}
		if err := b.PrintMessageLine(&tcoderv1.WatchJobResponse{Job: update.Job, Event: update.Event}); err != nil {
			return err
		}
	}
	if last.GetState() != tcoderv1.JobState_JOB_STATE_COMPLETED {
		return &cli.ShownError{Err: jobFailed(last)}
	}
	if !b.json {
		b.Printf("completed in %s\n", formatDuration(last.GetTimeToComplete()))
	}

	return nil
}

func jobsDownloadCommand(program *cli.Program) *cobra.Command {
	var dir string
	cmd := jobCommand(program, "download", "Fetch the outputs of a completed job",
		func(b *base, ctx context.Context, client *tcoder.Client, id string) error {
			entries, err := download(ctx, client, newDisplay(b.Stderr), id, dir)
			if err != nil {
				return err
			}
			if b.json {
				return b.PrintJSON(map[string][]string{"entries": entries})
			}
			for _, entry := range entries {
				b.Printf("%s\n", entry)
			}

			return nil
		})
	cmd.Flags().StringVarP(&dir, "output", "o", ".", "folder to write the outputs to")

	return cmd
}
