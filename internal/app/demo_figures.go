package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	neturl "net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"talea/internal/admin"
	"talea/internal/money"
)

// demoReader reads the demo's figures through the admin API: the view knows what any operator could know.
type demoReader struct {
	url, token string
	client     *http.Client
	limited    []string // accounts with limits, nil before the first read
}

func newDemoReader(url, token string) *demoReader {
	return &demoReader{url: url, token: token, client: &http.Client{Transport: &http.Transport{}}}
}

// ask makes one request of the admin API.
func (r *demoReader) ask(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("cannot ask the admin port: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.500s", resp.StatusCode, b)
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return fmt.Errorf("cannot read %s from the admin port: %w", path, err)
	}
	return nil
}

// read reads everything that the view shows.
func (r *demoReader) read(ctx context.Context) (*demoFigures, error) {
	f := &demoFigures{sums: map[string]*demoSum{}}
	if err := r.ask(ctx, "GET", "/v1/status", &f.status); err != nil {
		return nil, err
	}
	var rows []admin.UsageRow
	if err := r.ask(ctx, "GET", "/v1/usage?by=account,model", &rows); err != nil {
		return nil, err
	}
	for i := range rows {
		f.add(&rows[i])
	}
	if r.limited == nil {
		if err := r.findLimited(ctx); err != nil {
			return nil, err
		}
	}
	for _, account := range r.limited {
		var list []admin.Limit
		if err := r.ask(ctx, "GET", "/v1/limits?account="+neturl.QueryEscape(account), &list); err != nil {
			return nil, err
		}
		for _, l := range list {
			if l.Account == account {
				f.limits = append(f.limits, demoLimit{l})
			}
		}
	}
	return f, nil
}

// findLimited asks once which accounts there are; those without limits are not asked again.
func (r *demoReader) findLimited(ctx context.Context) error {
	var accounts []admin.Object
	if err := r.ask(ctx, "GET", "/v1/objects?kind=account", &accounts); err != nil {
		return err
	}
	for _, a := range accounts {
		var list []admin.Limit
		if err := r.ask(ctx, "GET", "/v1/limits?account="+neturl.QueryEscape(a.Name), &list); err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(l admin.Limit) bool { return l.Account == a.Name }) {
			r.limited = append(r.limited, a.Name)
		}
	}
	return nil
}

// check lets the server prove its books.
func (r *demoReader) check(ctx context.Context) (c admin.CheckResult, err error) {
	err = r.ask(ctx, "POST", "/v1/ledger/check", &c)
	return c, err
}

// demoFigures are what the admin API said at one moment.
type demoFigures struct {
	elapsed time.Duration
	status  admin.Status
	limits  []demoLimit
	sums    map[string]*demoSum // by account path; "" is everything, "model/NAME" a model
}

// demoSum is what was used by an account and everything below it.
type demoSum struct {
	requests, input, cached, output, reasoning int64
	charge                                     money.Amount
}

// modelSum is the path of a model's sum: no account has a colon in its path.
func modelSum(name string) string { return "model:" + name }

// add adds a row of usage to its account and to all above it.
func (f *demoFigures) add(row *admin.UsageRow) {
	paths := []string{"", modelSum(row.Model)}
	for path := row.Account; path != ""; {
		paths = append(paths, path)
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
	}
	for _, path := range paths {
		s := f.sums[path]
		if s == nil {
			s = &demoSum{}
			f.sums[path] = s
		}
		s.requests += row.Requests
		s.input += row.Input
		s.cached += row.CacheRead
		s.output += row.Output
		s.reasoning += row.Reasoning
		s.charge = s.charge.Add(row.Charge)
	}
}

// of returns the sum of a path, empty where there is none.
func (f *demoFigures) of(path string) demoSum {
	if s := f.sums[path]; s != nil {
		return *s
	}
	return demoSum{}
}

// accounts lists the accounts with usage down to a depth (1 is organisations), each behind the one that it is part of.
func (f *demoFigures) accounts(depth int) (list []string) {
	for path := range f.sums {
		if path != "" && !strings.Contains(path, ":") && strings.Count(path, "/") < depth {
			list = append(list, path)
		}
	}
	slices.Sort(list)
	return list
}

// models lists the models with usage.
func (f *demoFigures) models() (list []string) {
	for path := range f.sums {
		if name, ok := strings.CutPrefix(path, modelSum("")); ok {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// fullest is the limit of an account that is used the most, nil where it has none.
func (f *demoFigures) fullest(account string) (fullest *demoLimit) {
	for i := range f.limits {
		if l := &f.limits[i]; l.Account == account && (fullest == nil || l.part(l.Used, 1000) > fullest.part(fullest.Used, 1000)) {
			fullest = l
		}
	}
	return fullest
}

// refusals are the reasons that were said, the most frequent first.
func (f *demoFigures) refusals() []admin.Refused {
	list := slices.Clone(f.status.Refusals)
	slices.SortStableFunc(list, func(a, b admin.Refused) int { return int(b.Count - a.Count) })
	return list
}

// demoLimit is a limit and what stands against it.
type demoLimit struct{ admin.Limit }

// part is how many of so many parts of the limit an amount fills, rounded down, at most all.
func (l *demoLimit) part(amount string, parts int64) int64 {
	a, okA := new(big.Rat).SetString(amount)
	all, okAll := new(big.Rat).SetString(l.Limit.Limit)
	if !okA || !okAll || all.Sign() <= 0 {
		return parts // nothing is left of nothing
	}
	a.Mul(a, new(big.Rat).SetInt64(parts)).Quo(a, all)
	return min(parts, new(big.Int).Quo(a.Num(), a.Denom()).Int64())
}

// size says how large the limit is: "0.10 EUR/day", "400,000 tokens/hour".
func (l *demoLimit) size() string {
	amount, unit := l.Limit.Limit, l.Currency
	if unit == "" {
		unit = strings.ReplaceAll(l.Measure, "_", " ")
	}
	whole, fraction, exact := strings.Cut(amount, ".")
	if n, err := strconv.ParseInt(whole, 10, 64); err == nil {
		amount = thousands(n)
	}
	if exact {
		amount += "." + fraction + strings.Repeat("0", max(0, 2-len(fraction)))
	}
	if l.Window == "total" {
		return amount + " " + unit
	}
	return amount + " " + unit + "/" + l.Window
}

// thousands writes a whole number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// cents writes an amount with four decimals; what is beyond them is cut off, not rounded.
func cents(a money.Amount) string {
	whole, fraction, _ := strings.Cut(a.String(), ".")
	return whole + "." + (fraction + "0000")[:4]
}

// percent is part of whole in hundredths, rounded down; 0 of nothing.
func percent(part, whole int64) int64 {
	if whole == 0 {
		return 0
	}
	return part * 100 / whole
}

func clock(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// line is everything in one line, for output that is no terminal.
func (f *demoFigures) line() string {
	s := f.of("")
	text := fmt.Sprintf("%5s  requests %s  running %d  input %s (cached %s)  output %s (reasoning %s)  charged %s EUR",
		clock(f.elapsed), thousands(s.requests), f.status.Running, thousands(s.input), thousands(s.cached), thousands(s.output), thousands(s.reasoning), cents(s.charge))
	for i, no := range f.refusals() {
		if i == 0 {
			text += fmt.Sprintf("  refused %s:", thousands(f.status.Refused))
		}
		text += fmt.Sprintf(" %s %s", no.Reason, thousands(no.Count))
	}
	return text
}

// summary is the closing table, to the last digit.
func (f *demoFigures) summary() string {
	rows := [][]string{{"account", "requests", "input", "cached", "output", "reasoning", "EUR"}}
	row := func(name string, s demoSum) {
		rows = append(rows, []string{name, thousands(s.requests), thousands(s.input), thousands(s.cached), thousands(s.output), thousands(s.reasoning), s.charge.String()})
	}
	for _, path := range f.accounts(9) {
		depth := strings.Count(path, "/")
		row(strings.Repeat("  ", depth)+path[strings.LastIndexByte(path, '/')+1:], f.of(path))
	}
	row("all", f.of(""))
	for _, name := range f.models() {
		row("  "+name, f.of(modelSum(name)))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nAfter %s the ledger has:\n\n", clock(f.elapsed))
	alignDecimals(rows, 6)
	for _, r := range rows {
		fmt.Fprintf(&b, "%-22s %9s %11s %11s %10s %10s  %s\n", r[0], r[1], r[2], r[3], r[4], r[5], r[6])
	}
	b.WriteByte('\n')
	for _, l := range f.limits {
		fmt.Fprintf(&b, "limit     %-22s %3d %% of %s\n", l.Account, l.part(l.Used, 100), l.size())
	}
	var reasons []string
	for _, no := range f.refusals() {
		reasons = append(reasons, fmt.Sprintf("%s %s", no.Reason, thousands(no.Count)))
	}
	if len(reasons) > 0 {
		fmt.Fprintf(&b, "refused   %s\n", strings.Join(reasons, ", "))
	}
	return b.String()
}

// alignDecimals pads the cells of a column so that their points stand below each other.
func alignDecimals(rows [][]string, column int) {
	point := func(s string) int {
		if i := strings.IndexByte(s, '.'); i >= 0 {
			return i
		}
		return len(s)
	}
	most := 0
	for _, r := range rows {
		most = max(most, point(r[column]))
	}
	for _, r := range rows {
		r[column] = strings.Repeat(" ", most-point(r[column])) + r[column]
	}
}
