package rating

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the program embeds it; the tests must not depend on the machine's

	"talea/internal/money"
	"talea/internal/price"
	"talea/internal/resource"
	"talea/internal/usage"
)

var update = flag.Bool("update", false, "write the results in testdata again")

// sheet is one case of golden.txt while it is worked through.
type sheet struct {
	heads   []string // of the book, in YAML
	prices  []string
	factors []string
	minimum string
	at      time.Time
	before  usage.Counts
	values  map[string]money.Amount
	out     []string // result lines of the last step
}

// TestGolden: I7.
func TestGolden(t *testing.T) {
	const file = "testdata/golden.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	var s *sheet
	title := ""
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "|") {
			continue
		}
		out = append(out, line)
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0][0] == '#':
		case words[0] == "==":
			s, title = &sheet{values: map[string]money.Amount{}}, words[1]
		default:
			s.out = nil
			if err := s.step(words[0], words[1:]); err != nil {
				t.Errorf("%s:%d: %s: %v", file, i+1, title, err)
			}
			out = append(out, s.out...)
		}
	}
	got := strings.Join(out, "\n")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != string(text) {
		t.Errorf("results differ; -update writes them again:\n%s", firstDifference(string(text), got))
	}
}

// step does one line of a case.
func (s *sheet) step(op string, args []string) error {
	switch {
	case op == "price" && len(args) == 2:
		s.prices = append(s.prices, fmt.Sprintf("model: m, meter: %s, price: %q", args[0], args[1]))
	case op == "price" && len(args) == 4 && args[2] == "per":
		s.prices = append(s.prices, fmt.Sprintf("model: m, meter: %s, price: %q, per: %s", args[0], args[1], args[3]))
	case op == "entry":
		s.prices = append(s.prices, "model: m, "+strings.Join(args, " "))
	case op == "book":
		s.heads = append(s.heads, strings.Join(args, " "))
	case op == "at" && len(args) == 1:
		at, err := time.Parse(time.RFC3339, args[0])
		s.at = at
		return err
	case op == "before":
		s.before = usage.Counts{}
		return leaves(args, &s.before)
	case op == "schedule" && len(args) == 2:
		return s.schedule(args[0], args[1])
	case op == "reserve" && len(args) == 4:
		return s.reserve(args[0], args[1], args[2], args[3])
	case op == "multiply":
		s.factors = args
	case op == "minimum" && len(args) == 1:
		s.minimum = args[0]
	case op == "want" && len(args) == 2, op == "never" && len(args) == 2:
		given, err := money.ParseAmount(args[1])
		got, known := s.values[args[0]]
		if err != nil || !known {
			return fmt.Errorf("no value %s, or %v", args[0], err)
		}
		if (got == given) != (op == "want") {
			return fmt.Errorf("%s is %s, %s %s", args[0], got, op, given)
		}
	case op == "rate" && len(args) >= 1:
		return s.rate(args[0], args[1:])
	case op == "ceiling" && len(args) >= 1:
		return s.ceiling(args[0], args[1:])
	case len(args) >= 2:
		return s.calculate(op, args[0], args[1:])
	default:
		return fmt.Errorf("cannot read %s %v", op, args)
	}
	return nil
}

// row makes the case's book, by way of a resource file, and picks its row.
func (s *sheet) row() (price.Row, error) {
	text := "price_books:\n- name: golden\n  currency: EUR\n"
	for _, line := range s.heads {
		text += "  " + line + "\n"
	}
	text += "  prices:\n"
	for i, p := range s.prices {
		if i == 0 && s.minimum != "" {
			p += fmt.Sprintf(", minimum_charge: %q", s.minimum)
		}
		text += "  - {" + p + "}\n"
	}
	doc, err := resource.Parse("golden", []byte(text))
	if err != nil {
		return price.Row{}, err
	}
	book, err := price.Parse(doc.Section("price_books")[0])
	if err != nil {
		return price.Row{}, err
	}
	var ppm []int64
	for _, f := range s.factors {
		p, err := price.ParseMultiplier(f)
		if err != nil {
			return price.Row{}, err
		}
		ppm = append(ppm, p)
	}
	return book.Row(price.Query{Model: "m"}, s.at, ppm...)
}

// position is where the case's counters stand.
func (s *sheet) position(row *price.Row) Position {
	p := make(Position, len(row.Forms))
	p.Advance(&s.before, row)
	return p
}

// leaves reads counts by leaf class.
func leaves(args []string, c *usage.Counts) error {
	return each(args, func(key string, n int64) bool {
		m, ok := usage.MeterByName(key)
		if ok {
			c.Set(m, n)
		}
		return ok
	})
}

// schedule shows what a whole window costs, by the one form of the row.
func (s *sheet) schedule(name, total string) error {
	row, err := s.row()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(total, 10, 64)
	s.set(name, Schedule(&row.Forms[0], n))
	return err
}

// reserve rates a meter that counts the seconds from one instant to another, each at the row of its time.
func (s *sheet) reserve(name, meter, from, to string) error {
	start, err := time.Parse(time.RFC3339, from)
	end, err2 := time.Parse(time.RFC3339, to)
	if err != nil || err2 != nil {
		return fmt.Errorf("cannot read %s and %s", from, to)
	}
	var sum money.Amount
	for s.at = start; s.at.Before(end); {
		row, err := s.row()
		if err != nil {
			return err
		}
		until := end
		if !row.To.IsZero() && row.To.Before(end) {
			until = row.To
		}
		if err := s.rate(name, []string{fmt.Sprintf("%s=%d", meter, int64(until.Sub(s.at)/time.Second))}); err != nil {
			return err
		}
		sum, s.at = sum.Add(s.values[name]), until
	}
	s.set(name, sum)
	return nil
}

func (s *sheet) rate(name string, args []string) error {
	row, err := s.row()
	if err != nil {
		return err
	}
	counts := usage.Counts{}
	if err := leaves(args, &counts); err != nil {
		return err
	}
	lines, charge, err := Rate(nil, &counts, &row, s.position(&row))
	if err != nil {
		return err
	}
	step := 1
	for i, l := range lines {
		leaf := l.Meter.String()
		switch {
		case l.Kind == usage.LineMinimum:
			leaf = "minimum"
		case l.Kind != usage.LineUsage:
			leaf += "/" + l.Kind.String()
		case i > 0 && lines[i-1].Meter == l.Meter:
			step++
			leaf = fmt.Sprintf("%s/%d", leaf, step)
		default:
			step = 1
		}
		s.out = append(s.out, fmt.Sprintf("| %-18s %18d × %-20s = %s", leaf, l.Quantity, l.UnitPrice, aligned(l.Amount)))
		s.values[name+"/"+leaf], s.values["unit/"+leaf] = l.Amount, l.UnitPrice.Amount()
		if l.UnitPrice.Times(l.Quantity) != l.Amount {
			return fmt.Errorf("line %+v does not multiply", l)
		}
	}
	s.set(name, charge)
	return nil
}

func (s *sheet) ceiling(name string, args []string) error {
	row, err := s.row()
	if err != nil {
		return err
	}
	var b usage.Bounds
	if err := each(args, func(key string, n int64) bool {
		bound, ok := map[string]*int64{"input": &b.Input, "output": &b.Output, "joint": &b.Joint}[key]
		if ok {
			*bound = n
		}
		return ok
	}); err != nil {
		return err
	}
	most, err := Ceiling(b, usage.Work{}, &row, s.position(&row))
	s.set(name, most)
	return err
}

// calculate does the arithmetic steps. An operand is the name of a value or an amount.
func (s *sheet) calculate(op, name string, args []string) error {
	a, err := s.operand(args[0])
	if err != nil {
		return err
	}
	rest := args[1:]
	switch {
	case op == "sum" || op == "sub":
		for _, arg := range rest {
			b, err := s.operand(arg)
			if err != nil {
				return err
			}
			if op == "sub" {
				b = b.Neg()
			}
			a = a.Add(b)
		}
		s.set(name, a)
	case op == "times" && len(rest) == 1:
		n, nerr := strconv.ParseInt(rest[0], 10, 64)
		unit, err := money.RateFromAmount(a)
		if nerr != nil || err != nil {
			return fmt.Errorf("cannot multiply: %v, %v", nerr, err)
		}
		s.set(name, unit.Times(n))
	case op == "divide" && len(rest) == 1:
		n, nerr := strconv.ParseInt(rest[0], 10, 64)
		part, err := money.RateOf(a, n)
		if nerr != nil || err != nil {
			return fmt.Errorf("cannot divide: %v, %v", nerr, err)
		}
		s.set(name, part.Amount())
	case op == "convert" && len(rest) == 1:
		r, err := money.ParseRate(rest[0], 1)
		if err != nil {
			return err
		}
		s.set(name, a.Convert(r))
	case op == "round" && len(rest) == 2:
		minor, err := strconv.Atoi(rest[0])
		mode, ok := map[string]money.Mode{"half_even": money.HalfEven, "half_away_from_zero": money.HalfAwayFromZero}[rest[1]]
		if err != nil || !ok {
			return fmt.Errorf("cannot round by %v", rest)
		}
		s.set(name, a.Round(minor, mode))
	case op == "split" && len(rest) >= 2:
		var n []int64
		for _, arg := range rest {
			v, err := strconv.ParseInt(arg, 10, 64)
			if err != nil {
				return err
			}
			n = append(n, v)
		}
		for i, part := range a.Split(int(n[0]), n[1:]) {
			s.set(fmt.Sprintf("%s/%d", name, i+1), part)
		}
	default:
		return fmt.Errorf("cannot read %s %s %v", op, name, args)
	}
	return nil
}

func (s *sheet) operand(text string) (money.Amount, error) {
	if a, ok := s.values[text]; ok {
		return a, nil
	}
	return money.ParseAmount(text)
}

// set gives a value its name and shows it.
func (s *sheet) set(name string, a money.Amount) {
	s.values[name] = a
	s.out = append(s.out, fmt.Sprintf("| %-60s = %s", name, aligned(a)))
}

// aligned writes an amount with its point in a fixed column.
func aligned(a money.Amount) string {
	whole, fraction, point := strings.Cut(a.String(), ".")
	if point {
		fraction = "." + fraction
	}
	return fmt.Sprintf("%10s%s", whole, fraction)
}

// each reads arguments like input=1500.
func each(args []string, take func(key string, n int64) bool) error {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || !take(key, n) {
			return fmt.Errorf("cannot read %s", arg)
		}
	}
	return nil
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d\n  file: %s\n  now:  %s", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines in the file, %d now", len(x), len(y))
}

// Every worked case is either done or written down as pending, once.
func TestNoCaseIsMissing(t *testing.T) {
	var have []string
	for file, mark := range map[string]string{"testdata/golden.txt": "== ", "testdata/pending.txt": ""} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, mark); ok && strings.HasPrefix(rest, "G") {
				have = append(have, strings.Fields(rest)[0])
			}
		}
	}
	want := []string{"G04x"}
	for i := range 30 {
		want = append(want, fmt.Sprintf("G%02d", i+1))
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("cases are\n%v, want\n%v", have, want)
	}
}
