package app

import (
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// demoView turns figures into the lines of a screen.
type demoView struct {
	at         Ready
	key, model string
	token      string
	plain      bool // no colours: https://no-color.org
	ascii      bool // no signs beyond ASCII
}

func newDemoView(at Ready, key, model, token string) *demoView {
	v := &demoView{at: at, key: key, model: model, token: token, plain: os.Getenv("NO_COLOR") != ""}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToUpper(os.Getenv(name)); locale != "" {
			v.ascii = !strings.Contains(locale, "UTF-8") && !strings.Contains(locale, "UTF8")
			break
		}
	}
	return v
}

// curl is a call that anybody can make while the demo runs, in lines that a shell takes as one.
func (v *demoView) curl() []string {
	return []string{
		"curl " + v.at.Tenants + "/v1/chat/completions \\",
		"  -H 'x-api-key: " + v.key + "' \\",
		`  -d '{"model":` + jsonText(v.model) + `,"max_tokens":60,"messages":[`,
		`       {"role":"user","content":"What is a tally?"}]}'`,
	}
}

// greeting is written before anything is shown.
func (v *demoView) greeting() string {
	return "The gateway is at " + v.at.Tenants + " and speaks OpenAI's API.\nA key for it is " + v.key + ". Try:\n\n" +
		strings.Join(v.curl(), "\n") + "\n\nIts admin port, for `talea usage`, `talea limits startup/labs` and so on:\n\n" +
		"export TALEA_ADMIN=" + v.at.Admin + " TALEA_ADMIN_TOKEN=" + v.token + "\n\n"
}

// Styles, as the terminal's own colours so that they fit its theme.
const (
	plainText = ""
	dim       = "2"
	bold      = "1"
	red       = "31"
	green     = "32"
	yellow    = "33"
	cyan      = "36"
)

// demoLine is one line in the making. What does not fit is cut off.
type demoLine struct {
	b     strings.Builder
	left  int // columns
	plain bool
}

func (v *demoView) line(width int) *demoLine { return &demoLine{left: width, plain: v.plain} }

// put adds text in a style.
func (l *demoLine) put(style, text string) *demoLine {
	if n := utf8.RuneCountInString(text); n > l.left {
		text = string([]rune(text)[:l.left])
	}
	l.left -= utf8.RuneCountInString(text)
	if style == plainText || l.plain || strings.TrimSpace(text) == "" {
		l.b.WriteString(text)
	} else {
		l.b.WriteString("\x1b[" + style + "m" + text + "\x1b[0m")
	}
	return l
}

// cell adds text that ends so many columns further on; pad adds text that begins so many columns.
func (l *demoLine) cell(style, text string, width int) *demoLine {
	return l.put(plainText, strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))).put(style, text)
}

func (l *demoLine) pad(style, text string, width int) *demoLine {
	return l.put(style, text).put(plainText, strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))))
}

// demoColumns are the widths of the table of accounts; 0 is left out.
type demoColumns struct{ name, requests, input, cached, output, euros, bar, size int }

func columnsFor(width int) demoColumns {
	switch {
	case width >= 114:
		return demoColumns{22, 9, 11, 11, 10, 9, 16, 24}
	case width >= 98:
		return demoColumns{20, 9, 10, 0, 9, 9, 12, 24}
	case width >= 76:
		return demoColumns{20, 9, 10, 0, 9, 9, 12, 0}
	case width >= 56:
		return demoColumns{18, 9, 0, 0, 0, 9, 12, 0}
	}
	return demoColumns{16, 0, 0, 0, 0, 9, 8, 0}
}

// lines are the screen: what it is, how to call it, the sums, the accounts with their budgets, the refusals.
func (v *demoView) lines(f *demoFigures, width, height int) []string {
	width-- // the last column stays free: terminals differ in what they do behind it
	var out []string
	add := func(l *demoLine) { out = append(out, l.b.String()) }
	const what = "  tokens metered, priced, limited and charged"
	title, right := v.line(width).put(bold, "talea demo"), clock(f.elapsed)+"  q ends"
	if title.left > len(what)+len(right) {
		title.put(dim, what)
	}
	add(title.cell(dim, right, title.left))
	if height >= 20 {
		out = append(out, "")
		for _, text := range v.curl() {
			add(v.line(width).put(cyan, text))
		}
	}
	out = append(out, "")
	for _, l := range v.totals(f, width) {
		add(l)
	}
	out = append(out, "")
	table := v.table(f, width, height-len(out)-2)
	for _, l := range table {
		add(l)
	}
	if height-len(out) > 2 {
		out = append(out, "")
	}
	add(v.refused(f, width))
	return out[:min(len(out), height)]
}

// totals are the sums of everything.
func (v *demoView) totals(f *demoFigures, width int) (list []*demoLine) {
	s := f.of("")
	count := func(name string, n int64) *demoLine {
		return v.line(width).pad(dim, name, 10).cell(bold, thousands(n), 9)
	}
	requests := count("requests", s.requests).put(dim, "   running ").put(bold, fmt.Sprint(f.status.Running)).
		put(dim, "   hung up ").put(bold, thousands(f.status.ClientGone))
	cached, reasoning := fmt.Sprintf("%d%% cached", percent(s.cached, s.input)), fmt.Sprintf("%d%% reasoning", percent(s.reasoning, s.output))
	if width < 75 {
		return []*demoLine{
			requests,
			count("input", s.input).put(dim, "   "+cached),
			count("output", s.output).put(dim, "   "+reasoning),
			v.line(width).pad(dim, "charged", 10).cell(bold, cents(s.charge), 9).put(dim, " EUR"),
		}
	}
	return []*demoLine{
		requests.put(dim, "   charged ").put(bold, cents(s.charge)).put(dim, " EUR"),
		count("tokens", s.input).put(dim, " in, "+cached+"   ").put(bold, thousands(s.output)).put(dim, " out, "+reasoning),
	}
}

// table lists models and accounts, as deep as there is room for.
func (v *demoView) table(f *demoFigures, width, room int) []*demoLine {
	c := columnsFor(width)
	depth := 1
	for depth < 4 && 1+len(f.accounts(depth+1)) <= room {
		depth++
	}
	accounts := f.accounts(depth)
	head := v.line(width).pad(dim, "account", c.name)
	for _, column := range []struct {
		name  string
		width int
	}{{"requests", c.requests}, {"input", c.input}, {"cached", c.cached}, {"output", c.output}, {"EUR", c.euros}} {
		if column.width > 0 {
			head.cell(dim, column.name, column.width)
		}
	}
	list := []*demoLine{head.put(dim, "  budget used")}
	if models := f.models(); 1+len(accounts)+len(models)+1 <= room {
		for _, name := range models {
			list = append(list, v.row(f, c, name, modelSum(name), plainText, width))
		}
		list = append(list, v.line(width))
	}
	for _, path := range accounts {
		level := strings.Count(path, "/")
		style := plainText
		if level == 0 {
			style = bold
		}
		name := strings.Repeat("  ", level) + path[strings.LastIndexByte(path, '/')+1:]
		list = append(list, v.row(f, c, name, path, style, width))
	}
	return list[:min(len(list), max(1, room))]
}

// row is one line of the table.
func (v *demoView) row(f *demoFigures, c demoColumns, name, path, style string, width int) *demoLine {
	s := f.of(path)
	l := v.line(width)
	if n := utf8.RuneCountInString(name); n > c.name {
		name = string([]rune(name)[:c.name])
	}
	l.pad(style, name, c.name)
	for _, column := range []struct {
		count int64
		width int
	}{{s.requests, c.requests}, {s.input, c.input}, {s.cached, c.cached}, {s.output, c.output}} {
		if column.width > 0 {
			l.cell(plainText, fitting(column.count, column.width-1), column.width)
		}
	}
	l.cell(style, cents(s.charge), c.euros)
	if limit := f.fullest(path); limit != nil {
		l.put(plainText, "  ")
		v.bar(l, limit, c)
	}
	return l
}

// fitting writes a count in so many columns: in millions, cut off, where it would not fit.
func fitting(n int64, width int) string {
	if s := thousands(n); len(s) <= width {
		return s
	}
	return fmt.Sprintf("%s.%dM", thousands(n/1_000_000), n/100_000%10)
}

// bar shows how much of a limit is used and how much is held.
func (v *demoView) bar(l *demoLine, limit *demoLimit, c demoColumns) {
	width := c.bar
	used := limit.part(limit.Used, int64(width))
	held := min(limit.part(limit.Held, int64(width)), int64(width)-used)
	hundredths := limit.part(limit.Used, 100)
	style := green
	switch {
	case hundredths >= 90:
		style = red
	case hundredths >= 70:
		style = yellow
	}
	full, part, empty := "━", "╍", "─"
	if v.ascii {
		full, part, empty = "#", "+", "-"
	}
	l.put(style, strings.Repeat(full, int(used))).put(yellow, strings.Repeat(part, int(held))).
		put(dim, strings.Repeat(empty, width-int(used+held))).
		cell(plainText, fmt.Sprintf("%d%%", hundredths), 5)
	if c.size > 0 {
		l.put(dim, " of "+limit.size())
	}
}

// refused counts the refusals by reason.
func (v *demoView) refused(f *demoFigures, width int) *demoLine {
	l := v.line(width).pad(dim, "refused", 10).cell(bold, thousands(f.status.Refused), 9).put(plainText, " ")
	for _, no := range f.refusals() {
		l.put(dim, "  "+no.Reason+" ").put(plainText, thousands(no.Count))
	}
	return l
}
