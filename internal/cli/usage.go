package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"talea/internal/admin"

	"github.com/spf13/cobra"
)

func (p *Program) usage() *cobra.Command {
	var account, by, from, to string
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Show what was used and what it costs",
		Long: `Show what settled requests used and what they cost, of all accounts or of one and those below it.

Requests count in the period in which they were admitted. --from and --to are times such as 2026-11-24T13:00:00+01:00, days
or months; they are taken to the quarter of an hour, and --to is exclusive. Hours, days and months are those of the
account's time zone. Amounts of different currencies are never added up.`,
		Example: `  talea usage --by account,model
  talea usage --account acme/research --by day --from 2026-11 --to 2026-12
  talea usage --by key,month -o csv`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			for name, v := range map[string]string{"account": account, "by": by, "from": from, "to": to} {
				if v != "" {
					q.Set(name, v)
				}
			}
			answer, err := p.ask(cmd.Context(), http.MethodGet, "/v1/usage", q, nil)
			if err != nil {
				return err
			}
			if p.format == "table" {
				p.aboveUsage(account, by, from, to)
				if empty(answer) {
					_, err := fmt.Fprintln(p.Stdout, "Nothing was used.")
					return err
				}
			}
			return p.showUsage(answer, by)
		},
	}
	f := cmd.Flags()
	f.StringVar(&account, "account", "", "path of the account whose usage, with that of all below it, is shown (default: all)")
	f.StringVar(&by, "by", "", "columns to group by, separated by commas: "+strings.Join(admin.Columns, ", "))
	f.StringVar(&from, "from", "", "beginning (default: that of the records)")
	f.StringVar(&to, "to", "", "end, exclusive (default: now)")
	return p.outputs(cmd)
}

// aboveUsage says over the table what it shows.
func (p *Program) aboveUsage(account, by, from, to string) {
	what := "Usage of " + cmp.Or(account, "all accounts")
	if by != "" {
		what += " by " + strings.ReplaceAll(by, ",", ", ")
	}
	fmt.Fprintf(p.Stdout, "%s, from %s to %s\n\n", what, cmp.Or(from, "the beginning"), cmp.Or(to, "now"))
}

func (p *Program) showUsage(answer json.RawMessage, by string) error {
	var rows []admin.UsageRow
	var columns []column
	if by != "" {
		for _, name := range strings.Split(by, ",") {
			columns = append(columns, column{name, name, text})
		}
	}
	return p.show(answer, &rows, func() *table {
		corrections := column{"corrections", "", hidden} // most have none
		for i := range rows {
			if !rows[i].Corrections.IsZero() {
				corrections = column{"corrections", "corrections", sum}
			}
		}
		t := &table{columns: append(columns,
			column{"requests", "requests", count}, column{"input_tokens", "input tokens", count}, column{"cache_read_input_tokens", "of these cached", count},
			column{"output_tokens", "output tokens", count}, column{"reasoning_output_tokens", "of these reasoning", count},
			column{"gpu_seconds", "", hidden}, column{"charge", "charge", sum}, corrections, column{"currency", "", text})}
		totals := map[string]*admin.UsageRow{}
		for i := range rows {
			t.rows = append(t.rows, usageCells(&rows[i], columns))
			addUsage(totals, &rows[i])
		}
		if len(rows) > 1 {
			for _, currency := range slices.Sorted(maps.Keys(totals)) {
				cells := usageCells(totals[currency], columns)
				if len(columns) > 0 {
					cells[0] = "total"
				}
				t.totals = append(t.totals, cells)
			}
		}
		return t
	})
}

func usageCells(r *admin.UsageRow, by []column) []string {
	var cells []string
	for _, c := range by {
		cells = append(cells, *r.Column(c.key))
	}
	for _, n := range []int64{r.Requests, r.Input, r.CacheRead, r.Output, r.Reasoning} {
		cells = append(cells, strconv.FormatInt(n, 10))
	}
	gpu := ""
	if r.GPUSeconds != nil {
		gpu = r.GPUSeconds.String()
	}
	return append(cells, gpu, r.Charge.String(), r.Corrections.String(), r.Currency)
}

// addUsage adds a row to the total of its currency.
func addUsage(totals map[string]*admin.UsageRow, r *admin.UsageRow) {
	sum := totals[r.Currency]
	if sum == nil {
		sum = &admin.UsageRow{Currency: r.Currency}
		totals[r.Currency] = sum
	}
	sum.Requests += r.Requests
	sum.Input += r.Input
	sum.CacheRead += r.CacheRead
	sum.Output += r.Output
	sum.Reasoning += r.Reasoning
	sum.Charge = sum.Charge.Add(r.Charge)
	sum.Corrections = sum.Corrections.Add(r.Corrections)
}
