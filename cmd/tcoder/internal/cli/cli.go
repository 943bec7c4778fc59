// Package cli is what the commands of tcoder share: where flags and the
// environment come from, how results and errors are printed, and which exit
// code they mean.
//
// Every flag has an environment variable, TCODER_ and its name in capitals; the
// flag wins over the environment, the environment over the default. Secrets
// have a variable alone, because arguments can be read by everybody on the
// computer.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes of tcoder.
const (
	ExitOK          = 0
	ExitFailed      = 1 // the job failed, or anything else that isn't below
	ExitUsage       = 2 // the command line is wrong
	ExitUnreachable = 3 // the server doesn't answer
)

// Program is the surroundings of a command. Tests replace them.
type Program struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// LookupEnv reads the environment.
	LookupEnv func(name string) (string, bool)
	// Notify and StopNotify subscribe to SIGINT and SIGTERM.
	Notify     func(chan<- os.Signal)
	StopNotify func(chan<- os.Signal)
}

// Real are the surroundings of this process.
func Real() *Program {
	return &Program{
		Stdin:      os.Stdin,
		Stdout:     os.Stdout,
		Stderr:     os.Stderr,
		LookupEnv:  os.LookupEnv,
		Notify:     func(c chan<- os.Signal) { signal.Notify(c, os.Interrupt, syscall.SIGTERM) },
		StopNotify: func(c chan<- os.Signal) { signal.Stop(c) },
	}
}

// Env reads a variable; empty and missing are the same.
func (p *Program) Env(name string) string {
	value, _ := p.LookupEnv(name)

	return value
}

// Printf writes to standard output. What can't be told to a terminal can't be
// told.
func (p *Program) Printf(format string, args ...any) {
	fmt.Fprintf(p.Stdout, format, args...)
}

// Logf writes a line to standard error.
func (p *Program) Logf(format string, args ...any) {
	fmt.Fprintf(p.Stderr, format+"\n", args...)
}

// ErrInterrupted is the cause of a context that a signal ended.
var ErrInterrupted = errors.New("interrupted")

// Interruptible returns a context that the first SIGINT or SIGTERM ends. The
// second one has its usual effect: it ends the process at once. Call stop when
// the context isn't needed any more.
func (p *Program) Interruptible(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	p.Notify(signals)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-signals:
			p.StopNotify(signals)
			cancel(ErrInterrupted)
		case <-ctx.Done():
		}
	}()

	return ctx, func() {
		cancel(nil)
		<-done
		p.StopNotify(signals)
	}
}

// Signals returns two contexts: the first signal ends the first one, the
// second signal both. Call stop when they aren't needed any more.
func (p *Program) Signals(ctx context.Context) (gentle, hard context.Context, stop func()) {
	hard, cancelHard := context.WithCancelCause(ctx)
	gentle, cancelGentle := context.WithCancelCause(hard)
	signals := make(chan os.Signal, 2)
	p.Notify(signals)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, cancel := range []context.CancelCauseFunc{cancelGentle, cancelHard} {
			select {
			case <-signals:
				cancel(ErrInterrupted)
			case <-hard.Done():
				return
			}
		}
	}()

	return gentle, hard, func() {
		cancelHard(nil)
		cancelGentle(nil)
		<-done
		p.StopNotify(signals)
	}
}

// UsageError is a command line, or a variable in its place, that can't be
// understood.
type UsageError struct{ Err error }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap implements errors.Unwrap.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// Group makes a command that only holds others.
func Group(use, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(commands...)

	return group
}
