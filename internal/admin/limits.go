package admin

import (
	"net/http"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/quota"
	"talea/internal/world"
)

// Limit is one limit and what stands against it in its running period. Amounts are decimal strings: of the currency for
// money, else whole numbers.
type Limit struct {
	Account   string  `json:"account"`
	Measure   string  `json:"measure"`
	Window    string  `json:"window"`
	Model     string  `json:"model,omitempty"`        // only requests to it count
	SizeClass string  `json:"size_class,omitempty"`   // only requests to models of it count
	Tier      string  `json:"service_tier,omitempty"` // only requests in it count
	Key       string  `json:"key,omitempty"`          // only its requests count
	Anchor    string  `json:"anchor,omitempty"`       // where its periods begin, if not by themselves
	Action    string  `json:"action,omitempty"`       // "alert", "degrade"; else it blocks
	DegradeTo string  `json:"degrade_to,omitempty"`
	Limit     string  `json:"limit"`
	Used      string  `json:"used"`
	Held      string  `json:"held"`
	InDoubt   string  `json:"in_doubt"`  // held by another node that cannot be asked; there is one node, so "0"
	ResetsAt  *string `json:"resets_at"` // RFC 3339 in the account's time zone; null for a limit that never does
	Period    string  `json:"period"`
	Currency  string  `json:"currency,omitempty"` // of money
	Alerts    []Alert `json:"alerts,omitempty"`
	Over      *Over   `json:"over_limit_by,omitempty"` // where it is exceeded: then no new hold is granted, unless it only alerts
}

// Alert is a threshold of a limit, and since when what is used has come to it in this period.
type Alert struct {
	At     string  `json:"at"` // as it was written: "80%"
	Amount string  `json:"amount"`
	Since  *string `json:"since"` // null: not yet
}

// Over is by how much a limit is exceeded, and the lawful reason.
type Over struct {
	Amount string `json:"amount"`
	Cause  string `json:"cause"` // "lowered", "correction", "alert_only"
}

// Notice says that what was used of a limit has come to one of its thresholds: once for each amount in each period.
type Notice struct {
	At       string `json:"at"` // RFC 3339 in the account's time zone
	Account  string `json:"account"`
	Key      string `json:"key,omitempty"`
	Measure  string `json:"measure"`
	Window   string `json:"window"`
	Period   string `json:"period"`
	Alert    string `json:"alert"` // the threshold as it was written
	Amount   string `json:"amount"`
	Used     string `json:"used"`
	Limit    string `json:"limit"`
	Currency string `json:"currency,omitempty"`
	Request  string `json:"request_id,omitempty"` // whose settlement it was; none where the limit was changed
}

// notices shows the newest notices, of one account and those below it where one is named, oldest first.
func (s *Server) notices(r *http.Request) (any, error) {
	q, err := query(r, "account")
	if err != nil {
		return nil, err
	}
	snap, path := s.World.Current(), account.Path(q.Get("account"))
	if path != "" && snap.Account(path) == nil {
		return nil, unknownAccount(snap, path)
	}
	list := []Notice{}
	for _, org := range snap.Accounts() {
		if org.Parent != nil || path != "" && org.Path != path.Organisation() {
			continue
		}
		for _, n := range s.Ledger.Notices(org.ID) {
			if path == "" || n.Limit.Path == path || strings.HasPrefix(string(n.Limit.Path), string(path)+"/") {
				list = append(list, noticeOf(&n, org.Currency))
			}
		}
	}
	return list, nil
}

func noticeOf(n *ledger.Notice, currency string) Notice {
	lim, m := &n.Limit, n.Limit.Measure
	out := Notice{
		At: inZone(n.At, lim.Zone), Account: string(lim.Path), Key: lim.Key, Measure: m.String(), Window: lim.Window.String(), Period: n.Period.Label,
		Alert: n.Alert.Text(m), Amount: m.Format(n.Alert.At), Used: m.Format(n.Used), Limit: m.Format(lim.Amount),
	}
	if m == quota.Money {
		out.Currency = currency
	}
	if n.Request != 0 {
		out.Request = n.Request.String()
	}
	return out
}

// limits shows the limits that a request of an account stands on: those of the organisation first, its own, and those of its
// keys.
func (s *Server) limits(r *http.Request) (any, error) {
	q, err := query(r, "account")
	if err != nil {
		return nil, err
	}
	snap, path := s.World.Current(), account.Path(q.Get("account"))
	a := snap.Account(path)
	if a == nil {
		return nil, unknownAccount(snap, path)
	}
	list := []Limit{}
	for _, st := range s.Ledger.Standings(a.Chain[0].ID, a.IDs) {
		list = append(list, limitOf(&st, a))
	}
	return list, nil
}

func limitOf(st *ledger.Standing, a *world.Account) Limit {
	lim, m := &st.Limit, st.Limit.Measure
	out := Limit{
		Account: string(lim.Path), Measure: m.String(), Window: lim.Window.String(), Model: lim.Model, SizeClass: lim.SizeClass,
		Limit: m.Format(lim.Amount), Used: m.Format(st.Used), Held: m.Format(st.Held), InDoubt: "0", Period: st.Period.Label,
		Tier: lim.Tier, Key: lim.Key, Anchor: lim.Anchor.Text(lim.Window), DegradeTo: lim.DegradeTo,
	}
	if lim.Action != quota.Block {
		out.Action = lim.Action.String()
	}
	for _, alert := range st.Alerts {
		state := Alert{At: alert.Text(m), Amount: m.Format(alert.Alert.At)}
		if !alert.Since.IsZero() {
			since := inZone(alert.Since, lim.Zone)
			state.Since = &since
		}
		out.Alerts = append(out.Alerts, state)
	}
	if by, cause := st.OverLimit(); cause != "" {
		out.Over = &Over{m.Format(by), cause}
	}
	if m == quota.Money {
		out.Currency = a.Currency
	}
	if !st.Period.End.IsZero() {
		resets := inZone(st.Period.End, lim.Zone)
		out.ResetsAt = &resets
	}
	return out
}

// inZone writes a time in a zone, in UTC where the zone is unknown here.
func inZone(t time.Time, zone string) string {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		loc = time.UTC
	}
	return t.In(loc).Format(time.RFC3339)
}
