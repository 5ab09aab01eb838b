package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"talea/internal/admin"
	"talea/internal/ledger"
	"talea/internal/store/sqlite"

	"github.com/spf13/cobra"
)

func (p *Program) ledger() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ledger", Short: "Prove or rebuild the books", Args: NoArgs,
		Example: `  talea ledger check
  talea ledger check --data /var/lib/talea
  talea ledger rebuild --data /var/lib/talea`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.ledgerCheck(), p.ledgerRebuild())
	return cmd
}

func (p *Program) ledgerCheck() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Prove that every balance and sum follows from an unbroken log",
		Long: `Read the whole log and prove that its chains are unbroken and that every balance and every sum of usage is what the log says:
of the running server, or with --data of a directory, whether a server runs on it or not. Exit status 0 and one line, or
6 and the first difference.`,
		Example: `  talea ledger check
  talea ledger check --data /var/lib/talea`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir != "" {
				return p.checkDir(dir)
			}
			answer, err := p.ask(cmd.Context(), http.MethodPost, "/v1/ledger/check", nil, nil)
			if err != nil {
				return err
			}
			var found admin.CheckResult
			if err := json.Unmarshal(answer, &found); err != nil {
				return fmt.Errorf("cannot read the server's answer, is it of another version? %w", err)
			}
			return p.showCheck(found)
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "data directory to check instead of asking the server")
	return p.outputs(cmd)
}

func (p *Program) checkDir(dir string) error {
	store, err := sqlite.OpenReader(dir)
	if err != nil {
		return err
	}
	defer store.Close()
	report, err := ledger.Check(store)
	if err != nil {
		return err
	}
	return p.showCheck(admin.CheckResult{OK: report.OK(), Report: report.String()})
}

func (p *Program) showCheck(found admin.CheckResult) error {
	var err error
	if p.format == "json" {
		answer, fault := json.Marshal(found)
		if fault != nil {
			return fmt.Errorf("cannot print the result: %w", fault)
		}
		err = p.printJSON(answer)
	} else {
		verdict := "the books agree"
		if !found.OK {
			verdict = "the books differ"
		}
		_, err = fmt.Fprintf(p.Stdout, "%s: %s\n", verdict, printable(found.Report))
	}
	if err == nil && !found.OK {
		return &exitError{ExitBooksDiffer, errSaid}
	}
	return err
}

func (p *Program) ledgerRebuild() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "rebuild --data DIR",
		Short: "Make balances and sums anew from the log; stop the server first",
		Long: `Make all balances and sums of usage anew from the log of a data directory, in one transaction. The log itself is not
changed, and a log whose chain is broken is refused. No server may run on the directory.`,
		Example: `  talea ledger rebuild --data /var/lib/talea`,
		Args:    NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if dir == "" {
				return UsageError("say which ledger to rebuild with --data")
			}
			if _, err := os.Stat(filepath.Join(dir, sqlite.FileName)); err != nil {
				return fmt.Errorf("cannot find a ledger: %w", err) // opening would make one
			}
			store, err := sqlite.Open(dir)
			if err != nil {
				return err
			}
			defer store.Close()
			if err := ledger.Rebuild(store); err != nil {
				return fmt.Errorf("cannot rebuild, so nothing has changed: %w", err)
			}
			report, err := ledger.Check(store)
			if err != nil {
				return err
			}
			return p.showCheck(admin.CheckResult{OK: report.OK(), Report: report.String()})
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "data directory (required)")
	return cmd
}
