package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/rating"
	"talea/internal/resource"
	"talea/internal/usage"

	"github.com/spf13/cobra"
)

// rateCall is what `talea rate` is asked.
type rateCall struct {
	file, book, model, sizeClass, at, tier, load, before, usage string
}

func (p *Program) rate() *cobra.Command {
	var c rateCall
	cmd := &cobra.Command{
		Use:   "rate -f FILE --model M --usage METER=N,…",
		Short: "Rate usage by hand, without a server",
		Long: `Rate usage by hand with a price book of a file, as a settled request would be rated, without a server. Every line is exact:
quantity × unit price = amount. The meters are the leaf classes ` + strings.Join(meterNames(), ", ") + `.
Only what is given is rated: add request=1 for a price per request.`,
		Example: `  talea rate -f book.yaml --model llama-8b --usage input_uncached=234,input_cache_read=1000,output_content=987
  talea rate -f book.yaml --book public --model llama-8b --service-tier batch --at 2026-11-24T13:00:00+01:00 --usage output_content=987 -o json`,
		Args: NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.runRate(&c) },
	}
	f := cmd.Flags()
	f.StringVarP(&c.file, "file", "f", "", "file with price_books (required)")
	f.StringVar(&c.book, "book", "", "name of the price book (needed where the file has several)")
	f.StringVar(&c.model, "model", "", "model (required)")
	f.StringVar(&c.sizeClass, "size-class", "", "size class of the model, for prices by size class")
	f.StringVar(&c.at, "at", "", "instant, RFC 3339 (default: now)")
	f.StringVar(&c.tier, "service-tier", "", "service tier (default: list price)")
	f.StringVar(&c.load, "load", "", "load multiplier, for books with load pricing")
	f.StringVar(&c.before, "before", "", "what was used before in the window, METER=N,…, for books with tiers")
	f.StringVar(&c.usage, "usage", "", "what to rate, METER=N,… (required)")
	return p.outputs(cmd)
}

func (p *Program) runRate(c *rateCall) error {
	if c.file == "" || c.model == "" || c.usage == "" {
		return UsageError("-f, --model and --usage are needed; see `talea rate --help`")
	}
	at := p.Now()
	if c.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, c.at); err != nil {
			return UsageError("--at %s is not a time such as 2026-11-24T13:00:00+01:00", c.at)
		}
	}
	counts, err := parseCounts("--usage", c.usage)
	if err != nil {
		return err
	}
	if c.before != "" {
		if _, err := parseCounts("--before", c.before); err != nil { // flat prices do not depend on it
			return err
		}
	}
	books, err := readBooks(c.file)
	if err != nil {
		return err
	}
	book, err := pick(books, c.book, at)
	if err != nil {
		return err
	}
	ppm, err := c.multipliers(book)
	if err != nil {
		return err
	}
	row, err := book.Row(c.model, c.sizeClass, at, ppm...)
	if err != nil {
		return fmt.Errorf("cannot price the usage by price book %s: %w", book.Name, err)
	}
	lines, total, err := rating.Rate(nil, counts, &row)
	if err != nil {
		return fmt.Errorf("cannot rate the usage: %w", err)
	}
	return p.showRated(lines, total, book.Currency)
}

// multipliers are those of the call, in parts per million.
func (c *rateCall) multipliers(b *price.Book) ([]int64, error) {
	if c.load != "" {
		load, err := money.ParseAmount(c.load)
		if err != nil {
			return nil, UsageError("--load: %v", err)
		}
		if load.String() != "1" {
			return nil, UsageError("price book %s has no load pricing, so --load %s cannot apply", b.Name, c.load)
		}
	}
	if c.tier == "" {
		return nil, nil
	}
	ppm, ok := b.Tier(c.tier)
	if !ok {
		return nil, UsageError("price book %s has no service tier %q", b.Name, c.tier)
	}
	return []int64{ppm}, nil
}

func meterNames() []string {
	var names []string
	for _, m := range usage.Meters {
		names = append(names, m.Name)
	}
	return names
}

// parseCounts reads "input_uncached=234,output_content=987".
func parseCounts(flag, text string) (*usage.Counts, error) {
	var c usage.Counts
	for _, part := range strings.Split(text, ",") {
		name, digits, ok := strings.Cut(part, "=")
		m, known := usage.MeterByName(name)
		n, err := strconv.ParseInt(digits, 10, 64)
		switch {
		case !ok:
			return nil, UsageError("%s: %q is not METER=N", flag, part)
		case !known:
			hint := "; the meters are " + strings.Join(meterNames(), ", ")
			if near := resource.Nearest(name, meterNames()); near != "" {
				hint = fmt.Sprintf("; did you mean %s?", near)
			}
			return nil, UsageError("%s: unknown meter %q%s", flag, name, hint)
		case err != nil || n < 0 || n > usage.MaxCount:
			return nil, UsageError("%s: %q is not a whole number from 0 to 10^15", flag, part)
		case c.Known(m):
			return nil, UsageError("%s: %s is given twice", flag, name)
		}
		c.Set(m, n)
	}
	return &c, nil
}

// readBooks reads the price books of a resource file, whatever else it has.
func readBooks(file string) ([]*price.Book, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the price books: %w", err)
	}
	doc, err := resource.Parse(file, text)
	if err != nil {
		return nil, err
	}
	var books []*price.Book
	var errs resource.Errors
	for _, n := range doc.Section("price_books") {
		b, err := price.Parse(n)
		errs.Add(err)
		if err == nil {
			books = append(books, b)
		}
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return books, price.Check(books)
}

// pick finds the version of a price book that is in force at an instant; without a name there must be only one book.
func pick(books []*price.Book, name string, at time.Time) (*price.Book, error) {
	var names []string
	var found *price.Book
	for _, b := range books {
		if !slices.Contains(names, b.Name) {
			names = append(names, b.Name)
		}
		if (name == "" || b.Name == name) && (found == nil || b.InForce(at)) {
			found = b
		}
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("the file has no price_books")
	case name == "" && len(names) > 1:
		return nil, UsageError("the file has the price books %s: say which with --book", strings.Join(names, ", "))
	case found == nil:
		return nil, UsageError("the file has no price book %q, but %s", name, strings.Join(names, ", "))
	}
	return found, nil
}

// rated is the answer for programs.
type rated struct {
	Lines    []ratedLine  `json:"lines"`
	Amount   money.Amount `json:"amount"`
	Currency string       `json:"currency"`
}

type ratedLine struct {
	Meter     string       `json:"meter"`
	Quantity  int64        `json:"quantity"`
	UnitPrice money.Rate   `json:"unit_price"` // of a single unit
	Amount    money.Amount `json:"amount"`
	Minimum   bool         `json:"minimum,omitempty"` // lifts the sum to the book's minimum charge
}

func (p *Program) showRated(lines []usage.Line, total money.Amount, currency string) error {
	out := rated{Lines: []ratedLine{}, Amount: total, Currency: currency}
	for _, l := range lines {
		out.Lines = append(out.Lines, ratedLine{l.Meter.String(), l.Quantity, l.UnitPrice, l.Amount, l.Minimum})
	}
	answer, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("cannot print the result: %w", err)
	}
	var r request
	return p.show(answer, &r, func() *table {
		r.Charge = total.String()
		return r.lineTable()
	})
}
