// Package app makes a running program of the other packages: it reads the settings, wires the server by hand, top to
// bottom, runs it and lets it end. It decides nothing about requests (gateway), money (ledger) or who may do what (world,
// admin), and the tool's other commands are package cli.
//
// # Invariants
//
//   - Nobody is answered before the ledger is open, holds of earlier runs are resolved and the world is loaded.
//   - Serve returns nil only when nothing is held any more.
//   - A setting that is not known, or is given twice, is an error with its place; none is ignored.
//   - The admin port is not reachable from elsewhere unless somebody said so, and never without a token that cannot be guessed.
//   - Secrets lie in files that only their owner can read; the admin token lies nowhere, only its hash.
//
// To add a setting: a field of Config and one of fileConfig, a name in settings, a line in Config.flags and in texts; its
// environment variable follows from its name.
//
// Start reading at Serve.
package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
	_ "time/tzdata" // calendars on machines without zones

	"talea/internal/cli"

	"github.com/spf13/cobra"
)

// Main runs the program as it was called, and returns its exit status. The first signal to end lets it end in order; the
// second ends it at once.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	h := osHost(version(), stderr)
	p := cli.Program{
		Args: args, Stdout: stdout, Stderr: stderr, Lookup: h.Lookup, Now: time.Now, Random: h.Random, Version: h.Version,
		Commands: []*cobra.Command{demoCommand(h, stdout), serveCommand(h, stdout)},
	}
	return p.Run(ctx)
}

func serveCommand(h Host, stdout io.Writer) *cobra.Command {
	var c Config
	cmd := &cobra.Command{
		Use:   "serve --data DIR",
		Short: "Run the gateway",
		Long: `Run the gateway: the tenants' port, which speaks OpenAI's API, and the admin port, which the other commands talk to.

Settings come from flags, else from the environment (TALEA_LISTEN, TALEA_ADMIN_LISTEN, TALEA_DATA, TALEA_RESOURCES,
TALEA_GRACE, …), else from talea.yaml in the working directory, whose section "server" has one item with the flags' names
(data, tls_cert, …). The admin token is made at the first start and printed once, unless TALEA_ADMIN_TOKEN gives one.`,
		Example: `  talea serve --data /var/lib/talea --resources resources.yaml
  talea serve --data ./data --listen :8443 --tls-cert cert.pem --tls-key key.pem`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(cmd, h.Lookup); err != nil {
				return err
			}
			h.Ready = func(r Ready) { printReady(stdout, r) }
			return Serve(cmd.Context(), c, h)
		},
	}
	c.flags(cmd)
	return cmd
}

func printReady(w io.Writer, r Ready) {
	fmt.Fprintf(w, "talea: tenants on %s\ntalea: operators on %s\n", r.Tenants, r.Admin)
	if r.Token != "" {
		fmt.Fprintf(w, "talea: admin token, shown this once: %s\n", r.Token)
	}
}

// version is that of the module, else of the commit that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
