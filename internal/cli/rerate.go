package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/admin"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/rerate"
	"talea/internal/store/sqlite"
	"talea/internal/world"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// rerateCall is what `talea rerate` and `talea price simulate` are asked.
type rerateCall struct {
	admin.RerateRequest
	file, data, last string
	dryRun, verify   bool
}

func (p *Program) rerate() *cobra.Command {
	var c rerateCall
	cmd := &cobra.Command{
		Use:   "rerate --from TIME [--to TIME] (--verify | --book NAME[@VERSION] | -f FILE) [--dry-run]",
		Short: "Rate settled requests again, from what the ledger stored",
		Long: `Rate the stored inputs of settled requests again: billed counts, service tier, admission time, model, size class and step of
the price tape. Requests are those that were admitted from --from to before --to.

--verify rates each under the very version of the price book that it was rated with: every line and every charge must be what
was stored, else the first that is not is named, with exit status 6. With --book or -f all of them are rated under one book,
its version in force at the admission, or the one that is named, and the differences are summed by account. Without --dry-run they are posted: one correction for each account, a new entry of
the log that is added to what is used of the account's budgets in the periods that run now. A correction says what it brings
the account to, so the same re-rating once more posts nothing.
Prices that depend on how much was used before count all requests of the organisation from its first, in the order of the log.

The server is asked, or with --data a directory is read, whether a server runs on it or not. Days and months are those of the
account's time zone, with --data of UTC.`,
		Example: `  talea rerate --verify --from 2026-11
  talea rerate --dry-run --book public --from 2026-11-01 --to 2026-12-01 --account acme
  talea rerate --book public --from 2026-11-01 --to 2026-12-01 --account acme --reason "price of cached input was wrong" --who anna
  talea rerate --dry-run -f draft.yaml --from 2026-11 --data /var/lib/talea -o csv`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			other := c.Book != "" || c.file != ""
			switch {
			case c.From == "":
				return UsageError("--from is needed; see `talea rerate --help`")
			case c.verify && (other || c.dryRun):
				return UsageError("--verify rates under the original prices: it takes no --book, no -f and no --dry-run")
			case !c.verify && !other:
				return UsageError("say under which prices: --book or -f, or --verify for the original ones")
			case !c.verify && !c.dryRun:
				if c.file != "" || c.data != "" || c.To == "" || c.Reason == "" || c.Who == "" {
					return UsageError("to post corrections say --to, --reason and --who, and a published book with --book; or --dry-run to see them")
				}
				c.Post = true
			}
			report, err := p.rerated(cmd.Context(), &c)
			if err != nil {
				return err
			}
			return p.showRerated(report, &c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.From, "from", "", "beginning (required)")
	f.StringVar(&c.To, "to", "", "end, exclusive (default: now)")
	f.StringVar(&c.Book, "book", "", "price book to rate under, NAME or NAME@VERSION; with -f the one of the file")
	f.StringVar(&c.Reason, "reason", "", "why corrections are posted, for the log")
	who, _ := p.Lookup("USER")
	f.StringVar(&c.Who, "who", who, "who posts them, for the log")
	f.BoolVar(&c.dryRun, "dry-run", false, "only show the differences; exit status 3 if there is one")
	f.BoolVar(&c.verify, "verify", false, "prove that the original prices give what was stored")
	return p.rerateFlags(cmd, &c)
}

// rerateFlags are those of both commands.
func (p *Program) rerateFlags(cmd *cobra.Command, c *rerateCall) *cobra.Command {
	f := cmd.Flags()
	f.StringVarP(&c.file, "file", "f", "", "file with the price book")
	f.StringVar(&c.Account, "account", "", "path of the account that, with all below it, is rated (default: all)")
	f.StringVar(&c.data, "data", "", "data directory to read instead of asking the server")
	return p.outputs(cmd)
}

func (p *Program) price() *cobra.Command {
	cmd := &cobra.Command{
		Use: "price", Short: "Try prices out", Args: NoArgs,
		Example: `  talea price simulate -f draft.yaml --last 30d`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.simulate())
	return cmd
}

func (p *Program) simulate() *cobra.Command {
	c := rerateCall{}
	cmd := &cobra.Command{
		Use:   "simulate -f FILE [--last 30d]",
		Short: "Show what the requests of the last days would have cost under a draft",
		Long: `Rate the settled requests of the last days under a price book of a file, as if it had been in force, and show by how much
what was charged would differ: in all, by organisation, and the accounts that pay most more and most less. Nothing is written.

The draft stands in for the published book of its name: what was rated under that, or under a contract book based on it, is
rated under the draft; all else stays as it was charged. A draft of a new name stands in for every book.`,
		Example: `  talea price simulate -f draft.yaml --last 30d
  talea price simulate -f draft.yaml --last 7d --account acme -o json`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.file == "" {
				return UsageError("-f is needed; see `talea price simulate --help`")
			}
			days, err := strconv.Atoi(strings.TrimSuffix(c.last, "d"))
			if err != nil || days < 1 || days > 3660 || !strings.HasSuffix(c.last, "d") {
				return UsageError("--last %s is not a number of days such as 30d", c.last)
			}
			now := p.Now().UTC()
			c.From, c.To, c.Replace = now.AddDate(0, 0, -days).Format(time.RFC3339), now.Format(time.RFC3339Nano), true
			report, err := p.rerated(cmd.Context(), &c)
			if err != nil {
				return err
			}
			return p.showSimulated(report)
		},
	}
	cmd.Flags().StringVar(&c.last, "last", "30d", "days before now")
	cmd.Flags().StringVar(&c.Book, "book", "", "name of the price book (needed where the file has several)")
	return p.rerateFlags(cmd, &c)
}

// rerated asks the server, or reads a directory.
func (p *Program) rerated(ctx context.Context, c *rerateCall) (*rerate.Report, error) {
	if c.file != "" {
		text, err := os.ReadFile(c.file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the price book: %w", err)
		}
		c.Draft = &admin.File{Name: c.file, Text: string(text)}
	}
	progress := p.advance("rated again")
	defer progress(0, 0)
	if c.data != "" {
		return p.rerateDir(ctx, c, progress)
	}
	ended := make(chan struct{})
	defer func() { <-ended }()
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(ended)
		p.watchRerate(watched, progress)
	}()
	answer, err := p.ask(ctx, http.MethodPost, "/v1/rerate", nil, &c.RerateRequest)
	if err != nil {
		return nil, err
	}
	var report rerate.Report
	if err := json.Unmarshal(answer, &report); err != nil {
		return nil, fmt.Errorf("cannot read the server's answer, is it of another version? %w", err)
	}
	return &report, nil
}

// watchRerate shows how far the server has come.
func (p *Program) watchRerate(ctx context.Context, progress func(done, total int64)) {
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var far admin.RerateProgress
		if answer, err := p.ask(ctx, http.MethodGet, "/v1/rerate", nil, nil); err == nil && json.Unmarshal(answer, &far) == nil && far.Total > 0 {
			progress(far.Done, far.Total)
		}
	}
}

func (p *Program) rerateDir(ctx context.Context, c *rerateCall, progress func(done, total int64)) (*rerate.Report, error) {
	call := &rerate.Call{Account: account.Path(c.Account), Book: c.Book, Replace: c.Replace, Progress: progress}
	var err error
	if call.From, err = admin.Instant("--from", c.From, time.UTC, time.Time{}); err != nil {
		return nil, UsageError("%v", err)
	}
	if call.To, err = admin.Instant("--to", c.To, time.UTC, p.Now()); err != nil {
		return nil, UsageError("%v", err)
	}
	if c.Draft != nil {
		if call.Draft, err = rerate.ParseDraft(c.Draft.Name, []byte(c.Draft.Text), c.Book); err != nil {
			return nil, asUsage(err)
		}
	}
	store, err := sqlite.OpenReader(c.data)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	objects, err := store.Objects()
	if err != nil {
		return nil, err
	}
	archive, err := world.ReadArchive(objects)
	if err != nil {
		return nil, err
	}
	past, err := ledger.ReadPast(store)
	if err != nil {
		return nil, err
	}
	report, err := rerate.Run(ctx, past, archive, call)
	return report, asUsage(err)
}

// asUsage gives a call that cannot be meant its exit status.
func asUsage(err error) error {
	var wrong *rerate.CallError
	if errors.As(err, &wrong) {
		return UsageError("%v", err)
	}
	return err
}

// progressLines is how many entries it takes for lines to be worth it where nobody looks.
const progressLines = 200_000

// advance returns what shows how far something is: a bar on a terminal, else a line for each tenth of much. A total of 0
// ends it.
func (p *Program) advance(what string) func(done, total int64) {
	f, ok := p.Stderr.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) {
		return bar(f, what)
	}
	tenth := int64(0)
	return func(done, total int64) {
		if total < progressLines || done*10/total == tenth {
			return
		}
		tenth = done * 10 / total
		fmt.Fprintf(p.Stderr, "%d %% of %d entries %s\n", tenth*10, total, what)
	}
}

// bar draws over one line of a terminal.
func bar(w io.Writer, what string) func(done, total int64) {
	const width = 30
	shown := int64(-1)
	return func(done, total int64) {
		switch {
		case total == 0 && shown >= 0:
			fmt.Fprint(w, "\r\x1b[K")
		case total > 0 && done*1000/total != shown:
			shown = done * 1000 / total
			full := int(min(width, done*width/total))
			fmt.Fprintf(w, "\r\x1b[K%s%s %d %% of %d entries %s", strings.Repeat("█", full), strings.Repeat("░", width-full), done*100/total, total, what)
		}
	}
}

func (p *Program) showRerated(report *rerate.Report, c *rerateCall) error {
	verify := c.verify
	wrong := report.Difference
	changes := false
	for i := range report.Accounts {
		changes = changes || !report.Accounts[i].Difference.IsZero()
	}
	if p.format == "table" && verify {
		if wrong == "" {
			_, err := fmt.Fprintf(p.Stdout, "the same: %d requests rated again, every line and every charge is what was stored\n", report.Requests)
			return err
		}
		if _, err := fmt.Fprintf(p.Stdout, "another: %s\n", printable(wrong)); err != nil {
			return err
		}
	} else if err := p.showSums(report, report.Accounts, "account"); err != nil {
		return err
	}
	switch {
	case wrong != "":
		return &exitError{ExitBooksDiffer, errSaid}
	case c.Post && p.format == "table":
		return p.said("\n%d corrections posted\n", report.Corrections)
	case changes && c.dryRun:
		return &exitError{ExitChanges, errSaid}
	}
	return nil
}

// showSums prints sums with their totals; JSON is the whole report.
func (p *Program) showSums(report *rerate.Report, sums []rerate.Sum, what string) error {
	answer, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("cannot print the result: %w", err)
	}
	return p.show(answer, &rerate.Report{}, func() *table {
		t := &table{columns: []column{{"account", what, text}, {"requests", "requests", count}, {"charged", "charged", sum}, {"corrected", "corrected", sum}, {"rated", "rated again", sum},
			{"difference", "difference", sum}, {"currency", "", text}}}
		var charged, corrected, rated, difference money.Amount
		requests, mixed := int64(0), false
		for i := range sums {
			s := &sums[i]
			t.add(string(s.Account), strconv.FormatInt(s.Requests, 10), s.Charged.String(), s.Corrected.String(), s.Rated.String(), s.Difference.String(), s.Currency)
			requests, mixed = requests+s.Requests, mixed || s.Currency != sums[0].Currency
			charged, corrected, rated, difference = charged.Add(s.Charged), corrected.Add(s.Corrected), rated.Add(s.Rated), difference.Add(s.Difference)
		}
		if len(sums) > 1 && !mixed {
			t.totals = append(t.totals, []string{"total", strconv.FormatInt(requests, 10), charged.String(), corrected.String(), rated.String(), difference.String(), sums[0].Currency})
		}
		return t
	})
}

// mostAffected is how many accounts people are shown.
const mostAffected = 10

func (p *Program) showSimulated(report *rerate.Report) error {
	if p.format != "table" {
		return p.showSums(report, report.Accounts, "account")
	}
	fmt.Fprintf(p.Stdout, "%d requests from %s to %s under %s\n", report.Requests, report.From.Format(time.DateTime), report.To.Format(time.DateTime), printable(report.Book))
	if report.Unpriced > 0 {
		fmt.Fprintf(p.Stdout, "%d of them stay as they were charged: the draft has no price for them, and would refuse them\n", report.Unpriced)
	}
	fmt.Fprintln(p.Stdout)
	if err := p.showSums(report, report.Organisations, "organisation"); err != nil {
		return err
	}
	worst := report.Accounts
	title := "\nMost affected accounts\n"
	if len(worst) > 2*mostAffected {
		worst = append(append([]rerate.Sum{}, worst[:mostAffected]...), worst[len(worst)-mostAffected:]...)
		title = fmt.Sprintf("\nThe %d accounts that would pay most more, and the %d that would pay most less\n", mostAffected, mostAffected)
	}
	fmt.Fprintln(p.Stdout, title)
	return p.showSums(report, worst, "account")
}
