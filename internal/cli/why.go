package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"talea/internal/admin"
	"talea/internal/usage"

	"github.com/spf13/cobra"
)

func (p *Program) why() *cobra.Command {
	return p.outputs(&cobra.Command{
		Use:   "why REQUEST_ID",
		Short: "Show why a request cost what it cost, or why it was refused",
		Long: `Show the record of one request: what it used, its charges line by line, the attempts at engines and the limits it stood on; or
why it was refused. The id is in the answer's header x-request-id.`,
		Example: `  talea why req_00grd2c8k0000
  talea why req_00grd2c8k0000 -o json`,
		Args: oneArg("request id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := usage.ParseID(args[0])
			if err != nil {
				return UsageError("%v", err)
			}
			answer, err := p.ask(cmd.Context(), http.MethodGet, "/v1/requests/"+id.String(), nil, nil)
			if err != nil {
				return err
			}
			if p.format == "json" {
				return p.printJSON(answer)
			}
			var r request
			if err := json.Unmarshal(answer, &r); err != nil {
				return fmt.Errorf("cannot read the server's answer, is it of another version? %w", err)
			}
			if p.format == "csv" {
				return r.lineTable().csv(p.Stdout)
			}
			if r.Status == "refused" {
				return p.printRefusal(&r.refused)
			}
			return p.printRecord(&r)
		},
	})
}

// refused is a refusal as it is kept.
type refused struct {
	RequestID string    `json:"request_id"`
	Status    string    `json:"status"`
	At        time.Time `json:"at"`
	Account   string    `json:"account"`
	Key       string    `json:"key"`
	Endpoint  string    `json:"endpoint"`
	Model     string    `json:"model"`
	Code      string    `json:"code"`
	Message   string    `json:"message"`
}

// request is what people are shown of a record.
type request struct {
	refused
	ModelAsked string `json:"model_asked"`
	Engine     string `json:"engine"`
	EngineKind string `json:"engine_kind"`
	Region     string `json:"region"`
	Usage      struct {
		Input     *int64 `json:"input_tokens"`
		CacheRead *int64 `json:"cache_read_input_tokens"`
		Output    *int64 `json:"output_tokens"`
		Reasoning *int64 `json:"reasoning_output_tokens"`
	} `json:"usage"`
	Source string   `json:"usage_source"`
	Flags  []string `json:"flags"`
	Lines  []struct {
		Meter     string `json:"meter"`
		Quantity  int64  `json:"quantity"`
		UnitPrice string `json:"unit_price"`
		Amount    string `json:"amount"`
		Minimum   bool   `json:"minimum"`
		Package   bool   `json:"package"`
		Fee       bool   `json:"fee"`
	} `json:"lines"`
	Charge     string `json:"charge"`
	Currency   string `json:"currency"`
	Hold       string `json:"hold"`
	Outcome    string `json:"outcome"`
	Fault      string `json:"fault"`
	Finish     string `json:"finish_reason"`
	PriceRow   string `json:"price_row"`
	Multiplier string `json:"multiplier"`
	Times      struct {
		First *int64 `json:"first_byte_us"`
		Total *int64 `json:"total_us"`
	} `json:"times"`
	Attempts []struct {
		Engine string `json:"engine"`
		Status *int64 `json:"status"`
		Fault  string `json:"fault"`
		Micros *int64 `json:"us"`
	} `json:"attempts"`
	Limits      []admin.TouchedLimit `json:"limits"`
	Corrections []admin.Correction   `json:"corrections"`
	Refusal     *refused             `json:"refusal"`
}

func (p *Program) printRefusal(r *refused) error {
	p.facts([][2]string{
		{"request", r.RequestID + ", refused: " + r.Code},
		{"when", r.At.UTC().Format("Mon 2 Jan 2006 15:04:05 UTC")},
		{"account", r.Account + ", key " + r.Key},
		{"asked for", strings.TrimSuffix(r.Endpoint+" "+r.Model, " ")},
		{"because", r.Message},
	})
	return nil
}

func (p *Program) printRecord(r *request) error {
	engine := "no engine"
	if r.Engine != "" {
		engine = r.Engine + " (" + strings.TrimSuffix(r.EngineKind+", "+r.Region, ", ") + ")"
	}
	facts := [][2]string{
		{"request", r.RequestID + ", " + r.Status},
		{"when", r.At.UTC().Format("Mon 2 Jan 2006 15:04:05 UTC") + took(", took ", r.Times.Total) + took(", first byte after ", r.Times.First)},
		{"account", r.Account + ", key " + r.Key},
		{"model", r.Model + " by " + engine + ", at " + r.Endpoint},
		{"outcome", strings.Join(present(r.Outcome, blame(r.Fault), prefixed("finish reason ", r.Finish)), ", ")},
		{"used", fmt.Sprintf("%s input tokens (%s cached), %s output tokens (%s reasoning), by %s", known(r.Usage.Input), known(r.Usage.CacheRead),
			known(r.Usage.Output), known(r.Usage.Reasoning), r.Source)},
		{"flags", strings.Join(r.Flags, ", ")},
		{"prices", strings.Join(present(r.PriceRow, prefixed("multiplier ", r.Multiplier)), ", ")},
		{"held", r.Hold + " " + r.Currency},
	}
	for _, a := range r.Attempts {
		facts = append(facts, [2]string{"attempt", strings.Join(present(a.Engine, prefixed("status ", number(a.Status)), a.Fault), " ") + took(" after ", a.Micros)})
	}
	if r.Refusal != nil {
		facts = append(facts, [2]string{"answered", r.Refusal.Code + ": " + r.Refusal.Message})
	}
	for _, c := range r.Corrections {
		facts = append(facts, [2]string{"corrected", fmt.Sprintf("%s: among %d requests of %s from %s to %s by %s %s in all, by %s under %s: %s", c.At.UTC().Format(time.DateTime), c.Requests,
			c.Account, c.From.UTC().Format(time.DateTime), c.To.UTC().Format(time.DateTime), c.Amount, c.Currency, c.Who, c.Book, c.Reason)})
	}
	p.facts(facts)
	fmt.Fprintln(p.Stdout)
	if err := r.lineTable().print(p.Stdout); err != nil {
		return err
	}
	if len(r.Limits) == 0 {
		return nil
	}
	fmt.Fprintln(p.Stdout, "\nLimits it stood on")
	t := &table{columns: []column{{"", "account", text}, {"", "limit", right}, {"", "period", text}, {"", "held for it", right}}}
	for _, l := range r.Limits {
		t.add(l.Account, withUnit(l.Limit, l.Measure, l.Currency)+per(l.Window)+narrowing(l.Model, l.SizeClass, l.Tier, l.Key), l.Period, withUnit(l.Held, l.Measure, l.Currency))
	}
	return t.print(p.Stdout)
}

// lineTable is the charges line by line, and their sum.
func (r *request) lineTable() *table {
	t := &table{columns: []column{{"meter", "charged for", text}, {"quantity", "quantity", count}, {"unit_price", "unit price", sum}, {"amount", "amount", sum}, {"currency", "", text}}}
	for _, l := range r.Lines {
		meter := l.Meter
		switch {
		case l.Minimum:
			meter = "minimum charge"
		case l.Package:
			meter += ", packages"
		case l.Fee:
			meter += ", fee of the step"
		}
		t.add(meter, strconv.FormatInt(l.Quantity, 10), l.UnitPrice, l.Amount, r.Currency)
	}
	t.totals = [][]string{{"charge", "", "", r.Charge, r.Currency}}
	return t
}

// facts prints named facts under each other; those without a text are left out.
func (p *Program) facts(list [][2]string) {
	for _, f := range list {
		if f[1] != "" {
			fmt.Fprintf(p.Stdout, "%-9s  %s\n", f[0], printable(f[1]))
		}
	}
}

func present(parts ...string) (out []string) {
	for _, s := range parts {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

func prefixed(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func blame(party string) string {
	if party == "" {
		return ""
	}
	return "fault of the " + party
}

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

// known writes a count, or that nobody reported it.
func known(n *int64) string {
	if n == nil {
		return "unknown"
	}
	return grouped(strconv.FormatInt(*n, 10))
}

func took(before string, micros *int64) string {
	if micros == nil {
		return ""
	}
	d := time.Duration(*micros) * time.Microsecond
	for _, unit := range []time.Duration{time.Second, time.Millisecond} {
		if d >= unit {
			d = d.Round(unit / 100)
			break
		}
	}
	return before + d.String()
}
