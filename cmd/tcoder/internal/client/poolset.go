package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoderv1 "github.com/tcoder-dev/tcoder/gen/go/tcoder/v1"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// clearScreen moves to the top of a terminal and empties it.
const clearScreen = "\x1b[H\x1b[2J"

func setCommand(program *cli.Program) *cobra.Command {
	var b *base
	cmd := &cobra.Command{
		Use: "set NAME=VALUE ...", Short: "Change settings of the pool while it runs",
		Long: `Change settings of the pool while it runs, on all replicas and for good:

  max=20            most machines there may be
  warm=2            machines that are kept running without work
  idle=30s          how long a worker waits for work before it leaves (0: for ever)
  stopped=3         stopped machines that are kept
  regions=fra,iad   where machines are made, the preferred first (empty: the provider chooses)
  size=performance-4x        size of machines for encodes (empty: the provider's default)
  light-size=performance-1x  size of machines made while only lighter tasks wait (empty: size)`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := parseSettings(args)
			if err != nil {
				return err
			}
			client, err := b.connect()
			if err != nil {
				return err
			}
			ctx, stop := b.Interruptible(cmd.Context())
			defer stop()
			settings, err := client.UpdatePool(ctx, change)
			if err != nil {
				return err
			}
			if b.json {
				return b.PrintMessage(settings)
			}
			b.Printf("%s\n", settingsText(settings))

			return nil
		},
	}
	b = newBase(program, cmd)

	return cmd
}

// parseSettings reads settings as name=value.
func parseSettings(args []string) (*tcoderv1.UpdatePoolRequest, error) {
	change := &tcoderv1.UpdatePoolRequest{}
	numbers := map[string]**uint32{"max": &change.MachineLimit, "warm": &change.MinWarm, "stopped": &change.KeepStopped}
	texts := map[string]**string{"size": &change.EncodeSize, "light-size": &change.LightSize}
	for _, arg := range args {
		name, value, found := strings.Cut(arg, "=")
		switch {
		case !found:
			return nil, cli.Usagef("%q: write name=value", arg)
		case numbers[name] != nil:
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return nil, cli.Usagef("%s: %q is not a number", name, value)
			}
			*numbers[name] = new(uint32(n))
		case texts[name] != nil:
			*texts[name] = &value
		case name == "idle":
			idle, err := time.ParseDuration(value)
			if err != nil && value != "0" {
				return nil, cli.Usagef("idle: %q is not a duration: write 90s or 5m", value)
			}
			change.IdleThreshold = durationpb.New(idle)
		case name == "regions":
			change.Regions = &tcoderv1.PoolRegions{Names: strings.FieldsFunc(value, func(r rune) bool { return r == ',' })}
		default:
			return nil, cli.Usagef("%q is none of max, warm, idle, stopped, regions, size and light-size", name)
		}
	}

	return change, nil
}

// settingsText is settings as set takes them.
func settingsText(s *tcoderv1.PoolSettings) string {
	text := fmt.Sprintf("max=%d warm=%d idle=%s stopped=%d", s.GetMachineLimit(), s.GetMinWarm(),
		s.GetIdleThreshold().AsDuration(), s.GetKeepStopped())
	if len(s.GetRegions()) > 0 {
		text += " regions=" + strings.Join(s.GetRegions(), ",")
	}
	if s.GetEncodeSize() != "" {
		text += " size=" + s.GetEncodeSize()
	}
	if s.GetLightSize() != "" {
		text += " light-size=" + s.GetLightSize()
	}

	return text
}

// showStatus shows the pool with its machines and workers: on a terminal over
// and over as they change, else once.
func (b *base) showStatus(ctx context.Context, client *tcoder.Client) error {
	file, isFile := b.Stdout.(*os.File)
	live := isFile && term.IsTerminal(int(file.Fd())) && !b.json
	for pool, err := range client.WatchPool(ctx) {
		if live && errors.Is(context.Cause(ctx), cli.ErrInterrupted) {
			return nil
		}
		if err != nil {
			return err
		}
		if b.json {
			return b.PrintMessage(pool)
		}
		if live {
			b.Printf(clearScreen)
		}
		if err := b.printStatus(pool); err != nil || !live {
			return err
		}
	}

	return nil
}

func (b *base) printStatus(pool *tcoderv1.WatchPoolResponse) error {
	b.printPool(pool.GetPool())
	if len(pool.GetMachines()) > 0 {
		b.Printf("\n")
		if err := b.printMachines(pool.GetMachines()); err != nil {
			return err
		}
	}
	if len(pool.GetWorkers()) > 0 {
		b.Printf("\n")

		return b.printWorkers(pool.GetWorkers())
	}

	return nil
}
