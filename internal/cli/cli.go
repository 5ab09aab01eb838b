// Package cli is the tool's commands: it reads what a person or a script typed, asks the admin port of a running server
// (or, where that makes sense, the files themselves), and prints the answer. It decides nothing: whatever changes the
// world is a request to package admin. The commands that run a server are package app's.
//
// # Invariants
//
//   - The exit statuses are those of Exit…; a script can rely on them.
//   - An error is one line that says what to do next, but for the faults of a resource file, which are a line each.
//   - JSON is what the admin port said; tables and CSV hold the same figures. No figure passes through a float.
//   - A name that somebody chose steers neither the terminal nor a spreadsheet.
//   - No secret is printed but the key that was just made.
//
// To add a command: a constructor in the list of Program.root, with an example, and a golden file of what it prints.
//
// Start reading at Program.Run.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"talea/internal/resource"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	ExitDone         = 0
	ExitFailed       = 1
	ExitUsage        = 2 // called in a way that cannot be meant
	ExitChanges      = 3 // a dry run that would change something
	ExitUnauthorised = 4
	ExitBudget       = 5 // a budget is used up
	ExitBooksDiffer  = 6
)

// Program is one call of the tool, with everything it has from outside.
type Program struct {
	Args           []string
	Stdout, Stderr io.Writer
	Lookup         func(name string) (string, bool) // environment
	Now            func() time.Time
	Random         io.Reader
	Version        string
	Commands       []*cobra.Command // of package app

	format string // -o
}

// exitError is an error with an exit status of its own. One without a text is an answer, and nothing more is printed.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// UsageError makes an error of a call that cannot be meant.
func UsageError(format string, args ...any) error {
	return &exitError{ExitUsage, fmt.Errorf(format, args...)}
}

// errSaid ends a command whose answer has been printed and whose status says the rest.
var errSaid = errors.New("")

// Run does what the arguments say, and returns the exit status.
func (p *Program) Run(ctx context.Context) int {
	root := p.root()
	root.SetArgs(p.Args)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	began := false
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		began = true
		return p.checkFormat(cmd)
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	status := ExitFailed
	var own *exitError
	switch {
	case errors.As(err, &own):
		status = own.status
	case !began: // cobra could make nothing of it
		status, err = ExitUsage, fmt.Errorf("%w; see `talea help`", err)
	}
	if text := strings.TrimRight(err.Error(), "\n"); text != "" {
		fmt.Fprintf(p.Stderr, "talea: %s\n", text)
	}
	return status
}

func (p *Program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "talea",
		Short: "Meter, price, limit and charge the tokens of your inference engines",
		Long: `talea runs a gateway in front of inference engines that meters, prices, limits and charges every token, and looks after it.

The commands that look at a running server talk to its admin port: TALEA_ADMIN (default ` + defaultAdmin + `) with the
token in TALEA_ADMIN_TOKEN, which ` + "`talea serve`" + ` printed at its first start.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 a dry run that would change something, 4 not authorised, 5 budget
exhausted, 6 the books differ.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return UsageError("%v; see `%s --help`", err, cmd.CommandPath())
	})
	root.AddCommand(p.Commands...)
	root.AddCommand(p.apply(), p.validate(), p.key(), p.model(), p.usage(), p.limits(), p.notices(), p.why(), p.ledger(), p.backup(), p.restore(), p.rate(), p.estimate(), p.rerate(), p.price(), p.version())
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil { // cobra's own has neither, and takes any word
		completion.Args, completion.RunE = NoArgs, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		completion.Example = "  talea completion bash > /etc/bash_completion.d/talea"
	}
	return root
}

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasSubCommands():
		return UsageError("%s takes no argument such as %q; see `%s --help`", nameOf(cmd), args[0], cmd.CommandPath())
	}
	var known []string
	for _, sub := range cmd.Commands() {
		known = append(known, sub.Name())
	}
	if near := resource.Nearest(args[0], known); near != "" {
		return UsageError("unknown command %q; did you mean `%s %s`?", args[0], cmd.CommandPath(), near)
	}
	return UsageError("unknown command %q; see `%s --help`", args[0], cmd.CommandPath())
}

// nameOf is a command as it is typed behind talea.
func nameOf(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "talea ") }

// oneArg wants exactly one argument, named what.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			example, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n")
			return UsageError("%s takes one %s, as in `%s`", nameOf(cmd), what, example)
		}
		return nil
	}
}

// outputs adds -o to a command that shows something.
func (p *Program) outputs(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&p.format, "output", "o", "table", "table, json or csv")
	return cmd
}

func (p *Program) checkFormat(cmd *cobra.Command) error {
	if f := cmd.Flags().Lookup("output"); f != nil && p.format != "table" && p.format != "json" && p.format != "csv" {
		return UsageError("-o %s: the forms are table, json and csv", p.format)
	}
	return nil
}

func (p *Program) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  talea version", Args: NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(p.Stdout, "talea", p.Version)
			return err
		},
	}
}
