package cli

import (
	"cmp"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"talea/internal/admin"

	"github.com/spf13/cobra"
)

func (p *Program) limits() *cobra.Command {
	return p.outputs(&cobra.Command{
		Use:   "limits ACCOUNT",
		Short: "Show the limits that an account stands on, and what is left of them",
		Long: `Show the limits that a request of an account stands on, its own and those of the accounts above it, with what is used, what
is held by running requests, and when each begins anew.`,
		Example: `  talea limits acme/research/chat
  talea limits acme/research/chat -o json`,
		Args: oneArg("account"),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := p.ask(cmd.Context(), http.MethodGet, "/v1/limits", url.Values{"account": {args[0]}}, nil)
			if err != nil {
				return err
			}
			var limits []admin.Limit
			if p.format == "table" && empty(answer) {
				_, err := fmt.Fprintf(p.Stdout, "No limit stands on %s or on an account above it.\n", args[0])
				return err
			}
			return p.show(answer, &limits, func() *table { return limitTable(limits, p.Now()) })
		},
	})
}

// limitTable has the exact figures for programs, and for people the same with units, what is left, and times in words.
func limitTable(limits []admin.Limit, now time.Time) *table {
	t := &table{columns: []column{
		{"account", "account", text}, {"measure", "", hidden}, {"window", "", hidden}, {"model", "", hidden}, {"size_class", "", hidden},
		{"limit", "", hidden}, {"used", "", hidden}, {"held", "", hidden}, {"in_doubt", "", hidden}, {"resets_at", "", hidden},
		{"period", "", hidden}, {"currency", "", hidden}, {"service_tier", "", hidden}, {"key", "", hidden}, {"anchor", "", hidden},
		{"action", "", hidden}, {"over_limit_by", "", hidden}, {"over_cause", "", hidden},
		{"", "limit", right}, {"", "used", right}, {"", "held", right}, {"", "left", right}, {"", "", text}, {"", "period", text}, {"", "resets", text}, {"", "", text},
	}}
	for i := range limits {
		l := &limits[i]
		resetsAt, resets := "", "never"
		if l.ResetsAt != nil {
			resetsAt = *l.ResetsAt
			if at, err := time.Parse(time.RFC3339, resetsAt); err == nil {
				resets = until(at, now)
			}
		}
		over := admin.Over{}
		if l.Over != nil {
			over = *l.Over
		}
		t.add(l.Account, l.Measure, l.Window, l.Model, l.SizeClass, l.Limit, l.Used, l.Held, l.InDoubt, resetsAt, l.Period, l.Currency,
			l.Tier, l.Key, l.Anchor, cmp.Or(l.Action, "block"), over.Amount, over.Cause,
			quantity(l.Limit, l)+per(l.Window)+narrowing(l.Model, l.SizeClass, l.Tier, l.Key), quantity(l.Used, l), quantity(l.Held, l), left(l), gauge(l), l.Period, resets, remarks(l))
	}
	return t
}

// remarks says what is special about a limit and its state: what it does if it does not block, and the highest threshold
// that what is used has come to.
func remarks(l *admin.Limit) string {
	var said []string
	switch {
	case l.Action == "alert":
		said = append(said, "alerts only")
	case l.DegradeTo != "":
		said = append(said, "degrades to "+l.DegradeTo)
	}
	if l.Over != nil {
		over := quantity(l.Over.Amount, l) + " over"
		if l.Over.Cause == "lowered" {
			over += ": it was lowered"
		} else if l.Over.Cause == "correction" {
			over += ": by a correction"
		}
		said = append(said, over)
	}
	for _, alert := range slices.Backward(l.Alerts) {
		if alert.Since != nil {
			said = append(said, "alert at "+alert.At)
			break
		}
	}
	return strings.Join(said, "; ")
}

// units are the measures as people say them behind a number.
var units = map[string]string{"input_tokens": "input tokens", "output_tokens": "output tokens", "tokens": "tokens", "requests": "requests", "work_ms": "ms of work", "gpu_seconds": "GPU seconds"}

// quantity writes an amount of a limit's measure with its unit.
func quantity(amount string, l *admin.Limit) string {
	return withUnit(amount, l.Measure, l.Currency)
}

func withUnit(amount, measure, currency string) string {
	switch measure {
	case "money":
		return sum.show(amount, decimals([][]string{{amount}}, 0)) + " " + currency
	case "gpu_seconds":
		return amount + " " + units[measure]
	}
	return count.show(amount, 0) + " " + units[measure]
}

func per(window string) string {
	switch window {
	case "total":
		return " in all"
	case "hour":
		return " an hour"
	}
	return " a " + window
}

func narrowing(model, sizeClass, tier, key string) string {
	out := ""
	if model != "" {
		out += " of " + model
	}
	if sizeClass != "" {
		out += " of " + sizeClass + " models"
	}
	if tier != "" {
		out += " in tier " + tier
	}
	if key != "" {
		out += " with " + key
	}
	return out
}

// rational reads a decimal string exactly; one that is none counts as 0.
func rational(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return new(big.Rat)
	}
	return r
}

// left is what neither is used nor held; "nothing" where that is 0 or less.
func left(l *admin.Limit) string {
	rest := new(big.Rat).Sub(rational(l.Limit), rational(l.Used))
	rest.Sub(rest, rational(l.Held))
	if rest.Sign() <= 0 {
		return "nothing"
	}
	places := 0
	if l.Measure == "money" || l.Measure == "gpu_seconds" {
		places = 15
	}
	text := rest.FloatString(places) // exact: no amount has more decimals
	if places > 0 {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return quantity(text, l)
}

const gaugeWidth = 10

// gauge draws how full a limit is: used and held.
func gauge(l *admin.Limit) string {
	limit := rational(l.Limit)
	full := new(big.Rat).Add(rational(l.Used), rational(l.Held))
	percent := int64(100)
	if limit.Sign() > 0 {
		share := new(big.Rat).Quo(full.Mul(full, big.NewRat(100, 1)), limit)
		percent = new(big.Int).Quo(share.Num(), share.Denom()).Int64() // towards 0: 100 only when it is full
	}
	bars := min(percent, 100) * gaugeWidth / 100
	return strings.Repeat("█", int(bars)) + strings.Repeat("░", int(gaugeWidth-bars)) + fmt.Sprintf(" %3d %%", percent)
}

// until says a time to come in words: "in 6 days, Tue 1 Dec 2026 00:00 +01:00".
func until(at, now time.Time) string {
	d := at.Sub(now)
	words := "now"
	switch {
	case d >= 48*time.Hour:
		words = fmt.Sprintf("in %d days", int64(d/(24*time.Hour)))
	case d >= 2*time.Hour:
		words = fmt.Sprintf("in %d hours", int64(d/time.Hour))
	case d >= 2*time.Minute:
		words = fmt.Sprintf("in %d minutes", int64(d/time.Minute))
	case d > 0:
		words = "within 2 minutes"
	}
	return words + ", " + at.Format("Mon 2 Jan 2006 15:04 -07:00")
}
