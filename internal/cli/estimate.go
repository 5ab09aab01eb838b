package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"talea/internal/gateway"
	"talea/internal/price"
	"talea/internal/quote"
	"talea/internal/usage"

	"github.com/spf13/cobra"
)

// estimateCall is what `talea estimate` is asked.
type estimateCall struct {
	rateCall
	gateway.Question
	bodyFile string
}

func (p *Program) estimate() *cobra.Command {
	var c estimateCall
	cmd := &cobra.Command{
		Use:   "estimate {--account A | -f FILE} {--model M --input N | --body FILE}",
		Short: "Say what a request would cost: at least, as expected, and at most",
		Long: `Say what a request would cost: the floor, what is expected and the ceiling, now or at a given time, and in which of the next
24 hours it is cheapest. With --account a running server answers, as POST /v1/estimate does for a key of the account: for the
model and for every other offering that could take the request, and whether it would fit the limits now. With -f a price book of
a file answers, without a server; that knows nothing of limits, of what was used before, and of load steps.`,
		Example: `  talea estimate --account acme/research/chat --model llama-8b --input 2000 --expect-output 300 --max-output 1000
  talea estimate --account acme/research/chat --body request.json --at 2026-11-24T23:00:00+01:00 -o json
  talea estimate -f book.yaml --model llama-8b --input 2000 --expect-output 300 --max-output 1000`,
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.runEstimate(cmd, &c) },
	}
	f := cmd.Flags()
	f.StringVar(&c.Account, "account", "", "account that would ask")
	f.StringVarP(&c.file, "file", "f", "", "file with price_books, instead of a server")
	f.StringVar(&c.book, "book", "", "name of the price book (with -f, where the file has several)")
	f.StringVar(&c.Query.Model, "model", "", "model")
	f.StringVar(&c.SizeClass, "size-class", "", "size class of the model (with -f, for prices by size class)")
	f.StringVar(&c.Family, "family", "", "family of the model (with -f, for prices by family)")
	f.Int64Var(&c.Input, "input", 0, "tokens of the prompt")
	f.Int64Var(&c.Output, "expect-output", 0, "tokens of the answer that are expected (default: what is learnt, or the most)")
	f.Int64Var(&c.MaxOutput, "max-output", 0, "most tokens of the answer (default: the model's; with -f, --expect-output)")
	f.StringVar(&c.at, "at", "", "instant, RFC 3339 (default: now)")
	f.StringVar(&c.Query.Tier, "service-tier", "", "service tier (default: standard)")
	f.StringVar(&c.bodyFile, "body", "", "file with the body of the request, as it would be sent")
	return p.outputs(cmd)
}

func (p *Program) runEstimate(cmd *cobra.Command, c *estimateCall) error {
	switch {
	case (c.Account == "") == (c.file == ""):
		return UsageError("either --account or -f is needed; see `talea estimate --help`")
	case (c.Query.Model == "") == (c.bodyFile == "") || c.file != "" && c.bodyFile != "":
		return UsageError("either --model or, with --account, --body is needed; see `talea estimate --help`")
	case min(c.Input, c.Output, c.MaxOutput) < 0 || max(c.Input, c.Output, c.MaxOutput) > usage.MaxCount:
		return UsageError("numbers of tokens are from 0 to 10^15")
	}
	if c.at != "" {
		var err error
		if c.At, err = time.Parse(time.RFC3339, c.at); err != nil {
			return UsageError("--at %s is not a time such as 2026-11-24T13:00:00+01:00", c.at)
		}
	}
	answer, err := p.estimated(cmd, c)
	if err != nil {
		return err
	}
	var a quote.Answer
	return p.show(answer, &a, func() *table { return estimateTable(&a) })
}

// estimated asks the server or the file.
func (p *Program) estimated(cmd *cobra.Command, c *estimateCall) (json.RawMessage, error) {
	if c.file != "" {
		a, err := p.estimateByFile(c)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	}
	c.Question.Model, c.Question.Tier = c.Query.Model, c.Query.Tier
	if c.bodyFile != "" {
		body, err := os.ReadFile(c.bodyFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the body: %w", err)
		}
		c.Body = string(body)
	}
	return p.ask(cmd.Context(), http.MethodPost, "/v1/estimate", nil, c.Question)
}

// estimateByFile is the answer of a price book alone.
func (p *Program) estimateByFile(c *estimateCall) (*quote.Answer, error) {
	if c.At.IsZero() {
		c.At = p.Now()
	}
	books, err := readBooks(c.file)
	if err != nil {
		return nil, err
	}
	book, err := pick(books, c.book, c.At)
	if err != nil {
		return nil, err
	}
	row, err := book.Row(c.Query, c.At)
	if err != nil {
		return nil, fmt.Errorf("cannot price the request by price book %s: %w", book.Name, err)
	}
	b := usage.Bounds{Input: c.Input, Output: max(c.MaxOutput, c.Output)}
	o := quote.Offering{Model: c.Query.Model, ServiceTier: c.Query.Tier, PriceVersion: book.Version}
	o.Expect = quote.Expectation{Tokens: quote.Tokens{Input: c.Input, Output: c.Output}, InputSource: quote.Given, OutputSource: quote.Given}
	if c.Output == 0 {
		o.Expect.Output, o.Expect.OutputSource = b.Output, quote.Bound
	}
	if o.ServiceTier == "" {
		o.ServiceTier = price.Standard
	}
	if err := o.Fill(b, usage.Work{}, &row, nil); err != nil {
		return nil, fmt.Errorf("cannot price the request by price book %s: %w", book.Name, err)
	}
	hour, ok := quote.Cheapest(c.At, func(at time.Time) (*price.Row, time.Time, error) {
		now, err := pick(books, book.Name, at)
		if err != nil {
			return nil, time.Time{}, err
		}
		r, err := now.Row(c.Query, at)
		return &r, r.To, err
	}, func(r *price.Row, _ time.Time) (quote.Prices, error) {
		return quote.Of(b, o.Expect.Tokens, usage.Work{}, r, nil)
	})
	if ok {
		o.CheapestHour = &hour
	}
	return &quote.Answer{Object: "estimate", At: c.At.UTC(), Endpoint: "chat", Currency: book.Currency, Offerings: []quote.Offering{o}, Note: quote.Note}, nil
}

func estimateTable(a *quote.Answer) *table {
	t := &table{columns: []column{
		{"model", "model", text}, {"service_tier", "tier", text}, {"floor", "floor", sum}, {"expected", "expected", sum}, {"ceiling", "ceiling", sum}, {"currency", "", text},
		{"multiplier", "×", right}, {"input_expected", "input", count}, {"output_expected", "output", count}, {"allowed", "allowed now", text},
		{"cheapest_from", "cheapest from", text}, {"cheapest_until", "", hidden}, {"cheapest_expected", "expected then", sum}, {"price_row", "", hidden},
	}}
	for i := range a.Offerings {
		o := &a.Offerings[i]
		allowed, from, until, then := "", "", "", ""
		if o.Allowed != nil {
			allowed = map[bool]string{true: "yes", false: "no"}[*o.Allowed]
		}
		if o.Short != nil {
			allowed += ": " + o.Short.Account + " " + o.Short.Measure + "/" + o.Short.Window
		}
		if h := o.CheapestHour; h != nil {
			from, until, then = h.From.Format(time.RFC3339), h.Until.Format(time.RFC3339), h.Expected.String()
		}
		t.add(o.Model, o.ServiceTier, o.Floor.String(), o.Expected.String(), o.Ceiling.String(), a.Currency, o.Multiplier,
			fmt.Sprint(o.Expect.Input), fmt.Sprint(o.Expect.Output), allowed, from, until, then, o.PriceRow)
	}
	return t
}
