package cli

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// kind says how a column's cells are written for people; CSV has them as they are.
type kind uint8

const (
	text   kind = iota // left-aligned
	right              // right-aligned
	count              // right-aligned, thousands apart
	sum                // an exact decimal: right-aligned, thousands apart, decimals of the column under each other
	hidden             // a text that people are not shown
)

// column is one column of a table.
type column struct {
	key   string // in CSV; "" leaves it out there
	title string // for people
	kind  kind
}

// table is rows of text under columns. An empty cell is unknown.
type table struct {
	columns []column
	rows    [][]string
	totals  [][]string // under a line; not in CSV
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table for people: aligned, two blanks between columns.
func (t *table) print(w io.Writer) error {
	all := append(append([][]string{}, t.rows...), t.totals...)
	shown := make([][]string, len(all))
	for i, row := range all {
		shown[i] = make([]string, len(t.columns))
		copy(shown[i], row)
	}
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		places := decimals(all, i)
		widths[i] = utf8.RuneCountInString(c.title)
		for j, row := range shown {
			if j < len(t.rows) || row[i] != "" { // what has no total is not unknown
				row[i] = c.kind.show(row[i], places)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	var b strings.Builder
	t.line(&b, titles, widths)
	for i, row := range shown {
		if i == len(t.rows) { // the first of the totals
			rule := make([]string, len(widths))
			for j, n := range widths {
				rule[j] = strings.Repeat("─", n)
			}
			t.line(&b, rule, widths)
		}
		t.line(&b, row, widths)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) line(b *strings.Builder, cells []string, widths []int) {
	var line strings.Builder
	for i, cell := range cells {
		if t.columns[i].kind == hidden {
			continue
		}
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if t.columns[i].kind == text {
			line.WriteString(cell + pad + "  ")
		} else {
			line.WriteString(pad + cell + "  ")
		}
	}
	b.WriteString(strings.TrimRight(line.String(), " "))
	b.WriteByte('\n')
}

// csv writes the table for programs. A text that a spreadsheet would take for a formula gets an apostrophe in front.
func (t *table) csv(w io.Writer) error {
	out := csv.NewWriter(w)
	var record []string
	for _, c := range t.columns {
		if c.key != "" {
			record = append(record, c.key)
		}
	}
	if err := out.Write(record); err != nil {
		return fmt.Errorf("cannot write CSV: %w", err)
	}
	for _, row := range t.rows {
		record = record[:0]
		for i, c := range t.columns {
			switch {
			case c.key == "":
			case c.kind == count || c.kind == sum:
				record = append(record, row[i])
			default:
				record = append(record, harmless(row[i]))
			}
		}
		if err := out.Write(record); err != nil {
			return fmt.Errorf("cannot write CSV: %w", err)
		}
	}
	out.Flush()
	return out.Error()
}

// harmless makes a text safe to open in a spreadsheet (OWASP, CSV injection).
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// decimals is the most decimals that a cell of a column has, at least 2.
func decimals(rows [][]string, i int) int {
	most := 2
	for _, row := range rows {
		if i < len(row) {
			_, fraction, _ := strings.Cut(row[i], ".")
			most = max(most, len(fraction))
		}
	}
	return most
}

func (k kind) show(cell string, places int) string {
	switch {
	case cell == "" && (k == count || k == sum):
		return "-"
	case k == count:
		return grouped(cell)
	case k == sum:
		whole, fraction, _ := strings.Cut(cell, ".")
		return grouped(whole) + "." + fraction + strings.Repeat("0", places-len(fraction))
	}
	return printable(cell)
}

// grouped puts commas between the thousands of a whole number.
func grouped(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	return sign + strings.Join(append([]string{digits}, parts...), ",")
}

// printable keeps what somebody named from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
