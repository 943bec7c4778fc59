// Package client holds the commands that talk to a server. They are built on
// sdk/go and the generated messages, and know nothing else of the product.
package client

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/tcoder-dev/tcoder/cmd/tcoder/internal/cli"
	tcoder "github.com/tcoder-dev/tcoder/sdk/go"
)

// DefaultServer is where `tcoder up` listens.
const DefaultServer = "http://127.0.0.1:8080"

// apiKeyEnv is the variable of the key that clients send.
const apiKeyEnv = "TCODER_API_KEY" //nolint:gosec // a name, not a key

// Commands are the client's commands.
func Commands(program *cli.Program) []*cobra.Command {
	return []*cobra.Command{
		transcodeCommand(program), jobsCommand(program), poolCommand(program), presetsCommand(program),
	}
}

// base is what every command of the client has.
type base struct {
	*cli.Program

	server string
	json   bool
}

func newBase(program *cli.Program, cmd *cobra.Command) *base {
	b := &base{Program: program}
	cmd.Flags().StringVar(&b.server, "server", DefaultServer, "address of the server")
	cmd.Flags().BoolVar(&b.json, "json", false, "print JSON")
	cli.AddSecrets(cmd, cli.Secret{Env: apiKeyEnv, Usage: "key to send to the server"})

	return b
}

// connect returns a client of the server. It connects to nothing yet.
func (b *base) connect() (*tcoder.Client, error) {
	address := b.server
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	client, err := tcoder.New(address, tcoder.WithAPIKey(b.Env(apiKeyEnv)), tcoder.WithUserAgent("tcoder-cli"))
	if err != nil {
		return nil, cli.Usagef("%q is not the address of a server: write http://host:port", b.server)
	}

	return client, nil
}
