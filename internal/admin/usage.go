package admin

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/resource"
	"talea/internal/usage"
	"talea/internal/world"
)

// UsageRow is what one group of settled requests used. Counts are tokens or requests; CacheRead is part of Input, and
// Reasoning of Output. Only the columns that were grouped by are there.
type UsageRow struct {
	Account     string       `json:"account,omitempty"` // path as it was at admission
	Key         string       `json:"key,omitempty"`     // public id
	Model       string       `json:"model,omitempty"`
	Hour        string       `json:"hour,omitempty"`  // 2026-11-24T13+01:00, in the account's time zone
	Day         string       `json:"day,omitempty"`   // 2026-11-24
	Month       string       `json:"month,omitempty"` // 2026-11
	Requests    int64        `json:"requests"`
	Input       int64        `json:"input_tokens"`
	CacheRead   int64        `json:"cache_read_input_tokens"`
	Output      int64        `json:"output_tokens"`
	Reasoning   int64        `json:"reasoning_output_tokens"`
	GPUSeconds  *json.Number `json:"gpu_seconds"` // null until it is measured
	Charge      money.Amount `json:"charge"`
	Corrections money.Amount `json:"corrections,omitzero"` // posted by re-ratings in this time, of whatever time
	Currency    string       `json:"currency"`
}

// Columns are what usage can be grouped by, in the order of a row's fields.
var Columns = []string{"account", "key", "model", "hour", "day", "month"}

// Column returns the row's field of one of Columns.
func (r *UsageRow) Column(name string) *string {
	switch name {
	case "account":
		return &r.Account
	case "key":
		return &r.Key
	case "model":
		return &r.Model
	case "hour":
		return &r.Hour
	case "day":
		return &r.Day
	}
	return &r.Month
}

// usage sums what was used, by the columns asked for. Sums of different currencies stay apart.
func (s *Server) usage(r *http.Request) (any, error) {
	q, err := query(r, "account", "by", "from", "to")
	if err != nil {
		return nil, err
	}
	snap := s.World.Current()
	top := account.Path(q.Get("account"))
	by, err := columnsOf(q.Get("by"))
	if err != nil {
		return nil, err
	}
	var org account.ID
	zone := time.UTC
	if a := snap.Account(top); a != nil {
		org, zone = a.Chain[0].ID, zoneOf(snap, a.ID)
	}
	from, err := Instant("from", q.Get("from"), zone, time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	to, err := Instant("to", q.Get("to"), zone, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		return nil, err
	}
	sums := sums{by: by, snap: snap, rows: map[UsageRow]*UsageRow{}, zones: map[account.ID]*time.Location{}}
	err = s.Ledger.Usage(org, from, to, func(sum ledger.Sum) error {
		if top == "" || sum.Subject.AccountPath.Within(top) {
			sums.add(&sum)
		}
		return r.Context().Err()
	})
	if err != nil {
		return nil, err
	}
	sums.corrections(s.Ledger, org, top, from, to)
	if top != "" && org == 0 && len(sums.rows) == 0 {
		return nil, unknownAccount(snap, top)
	}
	return sums.sorted(), nil
}

func columnsOf(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	by := strings.Split(text, ",")
	for i, name := range by {
		if !slices.Contains(Columns, name) || slices.Contains(by[:i], name) {
			return nil, refuse(http.StatusBadRequest, "invalid_request", "by %q: usage is grouped by each of %s at most once", name, strings.Join(Columns, ", "))
		}
	}
	return by, nil
}

// Instant reads a time: RFC 3339, or a day or month, which begins in the zone.
func Instant(name, text string, zone *time.Location, absent time.Time) (time.Time, error) {
	if text == "" {
		return absent, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, form := range []struct {
		layout string
		window period.Window
	}{{"2006-01-02", period.Day}, {"2006-01", period.Month}} {
		if t, err := time.ParseInLocation(form.layout, text, zone); err == nil {
			// From noon, because some zones have days without a midnight.
			return period.Of(form.window, zone, t.Add(12*time.Hour)).Start, nil
		}
	}
	return time.Time{}, refuse(http.StatusBadRequest, "invalid_request", "%s %q is not a time such as 2026-11-24T13:00:00+01:00, 2026-11-24 or 2026-11", name, text)
}

// sums adds usage up by the columns that were asked for.
type sums struct {
	by    []string
	snap  *world.Snapshot
	rows  map[UsageRow]*UsageRow // by a row that has its columns and currency only
	zones map[account.ID]*time.Location
}

// row is the row of a subject at a time.
func (s *sums) row(sub *usage.Subject, at time.Time) *UsageRow {
	group := UsageRow{Currency: sub.Currency}
	for _, name := range s.by {
		*group.Column(name) = s.value(name, sub, at)
	}
	row := s.rows[group]
	if row == nil {
		row = &UsageRow{}
		*row = group
		s.rows[group] = row
	}
	return row
}

func (s *sums) add(sum *ledger.Sum) {
	row := s.row(sum.Subject, sum.Start)
	n := &sum.Counts
	row.Requests += sum.Requests
	row.Input += n[usage.InputUncached] + n[usage.InputCacheRead] + n[usage.InputCacheWrite]
	row.CacheRead += n[usage.InputCacheRead]
	row.Output += n[usage.OutputContent] + n[usage.OutputReasoning]
	row.Reasoning += n[usage.OutputReasoning]
	row.Charge = row.Charge.Add(sum.Charge)
}

// corrections adds the corrections that were posted in [from, to), where they belong to an account and a time; no key or model
// has any.
func (s *sums) corrections(l *ledger.Ledger, org account.ID, top account.Path, from, to time.Time) {
	orgs := []account.ID{org}
	if org == 0 {
		orgs = l.Organisations()
	}
	for _, id := range orgs {
		for _, c := range l.Corrections(id) {
			if c.At.Before(from) || !c.At.Before(to) || top != "" && !c.Path.Within(top) {
				continue
			}
			sub := &usage.Subject{Account: c.Chain[len(c.Chain)-1], AccountPath: c.Path, Currency: c.Currency}
			row := s.row(sub, c.At)
			row.Corrections = row.Corrections.Add(c.Amount)
		}
	}
}

func (s *sums) value(column string, sub *usage.Subject, at time.Time) string {
	switch column {
	case "account":
		return string(sub.AccountPath)
	case "key":
		return sub.Key
	case "model":
		return sub.Model
	}
	zone := s.zones[sub.Account]
	if zone == nil {
		zone = zoneOf(s.snap, sub.Account)
		s.zones[sub.Account] = zone
	}
	window, err := period.Parse(column)
	if err != nil {
		panic("admin: column " + column + " is no window")
	}
	return period.Of(window, zone, at).Label
}

// sorted returns the rows by their columns in the order asked for, then by currency.
func (s *sums) sorted() []*UsageRow {
	rows := []*UsageRow{} // not nil: JSON's [] and not null
	for _, row := range s.rows {
		if row.Requests != 0 || !row.Charge.IsZero() || !row.Corrections.IsZero() || row.Input != 0 || row.Output != 0 {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b *UsageRow) int {
		for _, name := range s.by {
			if c := cmp.Compare(*a.Column(name), *b.Column(name)); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.Currency, b.Currency)
	})
	return rows
}

// zoneOf is the calendar of an account; UTC for one that is no longer there.
func zoneOf(snap *world.Snapshot, id account.ID) *time.Location {
	if a := snap.AccountByID(id); a != nil {
		if zone, err := period.Zone(a.Zone); err == nil {
			return zone
		}
	}
	return time.UTC
}

func unknownAccount(snap *world.Snapshot, path account.Path) *denial {
	var known []string
	for _, a := range snap.Accounts() {
		known = append(known, string(a.Path))
	}
	hint := ""
	if near := resource.Nearest(string(path), known); near != "" {
		hint = "; did you mean " + near + "?"
	}
	return refuse(http.StatusNotFound, "unknown_account", "there is no account %q%s", path, hint)
}
