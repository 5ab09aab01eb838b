package cli

import (
	"encoding/json"
	"errors"
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
	file, book, at, load, before, usage string
	price.Query
}

func (p *Program) rate() *cobra.Command {
	var c rateCall
	cmd := &cobra.Command{
		Use:   "rate -f FILE --model M --usage METER=N,…",
		Short: "Rate usage by hand, without a server",
		Long: `Rate usage by hand with a price book of a file, as a settled request would be rated, without a server. Every line is exact:
quantity × unit price = amount. The meters are the leaf classes ` + strings.Join(meterNames(), ", ") + `.
Only what is given is rated: add request=1 for a price per request. All of it is taken to be used at one instant.`,
		Example: `  talea rate -f book.yaml --model llama-8b --usage input_uncached=234,input_cache_read=1000,output_content=987
  talea rate -f book.yaml --book public --model llama-8b --service-tier batch --at 2026-11-24T13:00:00+01:00 --usage output_content=987 -o json
  talea rate -f book.yaml --model llama-70b --size-class large --before output=9999000 --usage output_content=3000`,
		Args: NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.runRate(&c) },
	}
	f := cmd.Flags()
	f.StringVarP(&c.file, "file", "f", "", "file with price_books (required)")
	f.StringVar(&c.book, "book", "", "name of the price book (needed where the file has several)")
	f.StringVar(&c.Model, "model", "", "model (required)")
	f.StringVar(&c.SizeClass, "size-class", "", "size class of the model, for prices by size class")
	f.StringVar(&c.Family, "family", "", "family of the model, for prices by family")
	f.StringVar(&c.GPUKind, "gpu-kind", "", "GPU kind of the engine, for prices by GPU kind")
	f.StringVar(&c.Region, "region", "", "region of the engine, for prices by region")
	f.StringVar(&c.Organisation, "organisation", "", "organisation that asks, for prices by organisation")
	f.StringVar(&c.at, "at", "", "instant, RFC 3339 (default: now)")
	f.StringVar(&c.Tier, "service-tier", "", "service tier (default: standard)")
	f.StringVar(&c.load, "load", "", "load factor, for books with load pricing (default: 1)")
	f.StringVar(&c.before, "before", "", "what was used before in the window, METER=N,…, for prices with steps and packages")
	f.StringVar(&c.usage, "usage", "", "what to rate, METER=N,… (required)")
	return p.outputs(cmd)
}

func (p *Program) runRate(c *rateCall) error {
	if c.file == "" || c.Model == "" || c.usage == "" {
		return UsageError("-f, --model and --usage are needed; see `talea rate --help`")
	}
	at := p.Now()
	if c.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, c.at); err != nil {
			return UsageError("--at %s is not a time such as 2026-11-24T13:00:00+01:00", c.at)
		}
	}
	counts, err := parseCounts("--usage", c.usage, usage.MeterByName)
	if err != nil {
		return err
	}
	before := &usage.Counts{}
	if c.before != "" {
		if before, err = parseCounts("--before", c.before, meterOfBook); err != nil {
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
	load, err := c.loadFactor(book, at)
	if err != nil {
		return err
	}
	row, err := book.Row(c.Query, at, load...)
	var noTier price.ErrNoTier
	if errors.As(err, &noTier) {
		return UsageError("%v", err)
	}
	if err != nil {
		return fmt.Errorf("cannot price the usage by price book %s: %w", book.Name, err)
	}
	position := make(rating.Position, len(row.Forms))
	position.Advance(before, &row)
	lines, total, err := rating.Rate(nil, counts, &row, position)
	if err != nil {
		return fmt.Errorf("cannot rate the usage: %w", err)
	}
	return p.showRated(lines, total, book.Currency)
}

// meterOfBook finds a leaf class by its name in records or, since a price counts all that it is the price of, in price books.
func meterOfBook(name string) (usage.Meter, bool) {
	if m, ok := usage.MeterByName(name); ok {
		return m, true
	}
	return usage.MeterByPrice(name)
}

// loadFactor is that of the call, in parts per million; none where it says none.
func (c *rateCall) loadFactor(b *price.Book, at time.Time) ([]int64, error) {
	if c.load == "" {
		return nil, nil
	}
	ppm, err := price.ParseMultiplier(c.load)
	if err != nil {
		return nil, UsageError("--load: %v", err)
	}
	switch _, ladder := b.Ladder(at); {
	case ladder == nil && ppm != 1_000_000:
		return nil, UsageError("price book %s has no load pricing, so --load %s cannot apply", b.Name, c.load)
	case ladder != nil && !slices.Contains(ladder.Steps, ppm):
		return nil, UsageError("load factor %s is not one of the steps of price book %s", c.load, b.Name)
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
func parseCounts(flag, text string, meter func(string) (usage.Meter, bool)) (*usage.Counts, error) {
	var c usage.Counts
	for _, part := range strings.Split(text, ",") {
		name, digits, ok := strings.Cut(part, "=")
		m, known := meter(name)
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
	errs.Add(price.Check(books))
	books = price.Link(books, func(b *price.Book, err error) { errs.Add(b.Pos.Errorf("price book %s: %v", b.Name, err)) })
	return books, errs.Err()
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
	Package   bool         `json:"package,omitempty"` // so many packages, not units
	Fee       bool         `json:"fee,omitempty"`     // flat charge of a step that was entered
}

func (p *Program) showRated(lines []usage.Line, total money.Amount, currency string) error {
	out := rated{Lines: []ratedLine{}, Amount: total, Currency: currency}
	for _, l := range lines {
		out.Lines = append(out.Lines, ratedLine{
			Meter: l.Meter.String(), Quantity: l.Quantity, UnitPrice: l.UnitPrice, Amount: l.Amount,
			Minimum: l.Kind == usage.LineMinimum, Package: l.Kind == usage.LinePackage, Fee: l.Kind == usage.LineFee,
		})
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
