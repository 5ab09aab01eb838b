package cli

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"talea/internal/admin"

	"github.com/spf13/cobra"
)

func (p *Program) notices() *cobra.Command {
	return p.outputs(&cobra.Command{
		Use:   "notices [ACCOUNT]",
		Short: "Show which thresholds of limits were reached, and when",
		Long: `Show the newest notices, oldest first: of an account and those below it, or of all. A limit's thresholds (alerts) are noticed
when what is used has come to them, once in each period.`,
		Example: `  talea notices acme
  talea notices -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{}
			if len(args) > 0 {
				query.Set("account", args[0])
			}
			answer, err := p.ask(cmd.Context(), http.MethodGet, "/v1/notices", query, nil)
			if err != nil {
				return err
			}
			if p.format == "table" && empty(answer) {
				_, err := fmt.Fprintln(p.Stdout, "No threshold of a limit was reached.")
				return err
			}
			var list []admin.Notice
			return p.show(answer, &list, func() *table { return noticeTable(list) })
		},
	})
}

func noticeTable(list []admin.Notice) *table {
	t := &table{columns: []column{
		{"at", "", hidden}, {"", "when", text}, {"account", "account", text}, {"key", "key", text}, {"measure", "", hidden}, {"window", "", hidden},
		{"period", "period", text}, {"alert", "alert at", right}, {"amount", "", hidden}, {"used", "", hidden}, {"limit", "", hidden}, {"currency", "", hidden},
		{"", "used", right}, {"", "limit", right}, {"request_id", "request", text},
	}}
	for i := range list {
		n := &list[i]
		when := n.At
		if at, err := time.Parse(time.RFC3339, n.At); err == nil {
			when = at.Format("2 Jan 2006 15:04 -07:00")
		}
		t.add(n.At, when, n.Account, n.Key, n.Measure, n.Window, n.Period, n.Alert, n.Amount, n.Used, n.Limit, n.Currency,
			withUnit(n.Used, n.Measure, n.Currency), withUnit(n.Limit, n.Measure, n.Currency)+per(n.Window), n.Request)
	}
	return t
}
