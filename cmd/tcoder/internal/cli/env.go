package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Secret is a setting that is read from the environment alone.
type Secret struct {
	// Env is its variable.
	Env string
	// Usage says what it is.
	Usage string
}

const secretsAnnotation = "tcoder_secrets"

// AddSecrets says which secrets a command reads, for its help and the table of
// the configuration.
func AddSecrets(cmd *cobra.Command, secrets ...Secret) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	for _, secret := range secrets {
		cmd.Annotations[secretsAnnotation] += secret.Env + "\t" + secret.Usage + "\n"
	}
}

// Secrets are those that AddSecrets named.
func Secrets(cmd *cobra.Command) []Secret {
	var secrets []Secret
	for line := range strings.SplitSeq(cmd.Annotations[secretsAnnotation], "\n") {
		if env, usage, found := strings.Cut(line, "\t"); found {
			secrets = append(secrets, Secret{env, usage})
		}
	}

	return secrets
}

// EnvName is the variable of a flag.
func EnvName(flag string) string {
	return "TCODER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// hasEnv reports whether a flag can be set by a variable: all but those that
// ask for something else than running the command.
func hasEnv(flag *pflag.Flag) bool {
	return flag.Name != "help" && !flag.Hidden
}

// ApplyEnv sets the flags of a command that the command line left out from the
// environment.
func (p *Program) ApplyEnv(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if flag.Changed || !hasEnv(flag) {
			return
		}
		name := EnvName(flag.Name)
		value := p.Env(name)
		if value == "" {
			return
		}
		if err := cmd.Flags().Set(flag.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("invalid value %q of %s: %w", value, name, errors.Unwrap(err)))
		}
	})
	if len(errs) > 0 {
		return &UsageError{errors.Join(errs...)}
	}

	return nil
}

// Setting is one row of the table of the configuration.
type Setting struct {
	// Flag is empty for a secret.
	Flag    string
	Env     string
	Default string
	Usage   string
	// Commands that have it.
	Commands []string
}

// Settings are those of all commands below root, in the order in which the
// commands have them. One that several commands have is listed once.
func Settings(root *cobra.Command) []Setting {
	var settings []Setting
	add := func(s Setting, command string) {
		at := slices.IndexFunc(settings, func(other Setting) bool {
			return other.Env == s.Env && other.Default == s.Default && other.Usage == s.Usage
		})
		if at < 0 {
			at = len(settings)
			settings = append(settings, s)
		}
		settings[at].Commands = append(settings[at].Commands, command)
	}
	walk(root, func(cmd *cobra.Command) {
		name := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if hasEnv(flag) {
				add(Setting{Flag: flag.Name, Env: EnvName(flag.Name), Default: defaultText(flag), Usage: flag.Usage}, name)
			}
		})
		for _, secret := range Secrets(cmd) {
			add(Setting{Env: secret.Env, Usage: secret.Usage}, name)
		}
	})

	return settings
}

func defaultText(flag *pflag.Flag) string {
	if flag.DefValue == "false" {
		return ""
	}

	return strings.Trim(flag.DefValue, "[]") // of a list
}

// walk visits the commands that a user may run.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	for _, child := range cmd.Commands() {
		if child.Hidden || child.Name() == "help" || child.Name() == "completion" {
			continue
		}
		visit(child)
		walk(child, visit)
	}
}

// DescribeEnv adds the variables to the help of all commands below root.
func DescribeEnv(root *cobra.Command) {
	walk(root, func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if hasEnv(flag) {
				flag.Usage += " [" + EnvName(flag.Name) + "]"
			}
		})
		secrets := Secrets(cmd)
		if len(secrets) == 0 {
			return
		}
		if cmd.Long == "" {
			cmd.Long = cmd.Short
		}
		cmd.Long += "\n\nSecrets, from the environment alone:"
		for _, secret := range secrets {
			cmd.Long += "\n  " + secret.Env + ": " + secret.Usage
		}
	})
}
