package quota

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"talea/internal/account"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/usage"
)

// Limit is one limit on one node of the tree, or on one key of a project.
type Limit struct {
	Org       account.ID // organisation of the node
	Account   account.ID
	Path      account.Path // label of the node, for messages
	Key       string       // narrowed to this key of the account, by its public id; "" is all
	Measure   Measure
	Window    period.Window
	Anchor    period.Anchor // where its periods begin
	Zone      string        // IANA zone of the organisation's calendar
	Model     string        // narrowed to this offering; "" is all
	SizeClass string        // narrowed to this size class; "" is all
	Tier      string        // narrowed to this service tier; "" is all
	Amount    money.Amount
	Action    Action
	DegradeTo string  // the offering that Degrade sends to; else ""
	Alerts    []Alert // by amount
}

// Action is what a limit does to a hold that does not fit it. Stored: append only.
type Action uint8

// Actions.
const (
	Block     Action = iota // it is refused
	AlertOnly               // nothing: it is granted all the same, and counted
	Degrade                 // it is refused; the request is tried again with a cheaper offering
	numActions
)

var actions = [numActions]string{"block", "alert", "degrade"}

// String returns the word used in resource files.
func (a Action) String() string {
	if a >= numActions {
		return "unknown"
	}
	return actions[a]
}

// ParseAction finds an action by its word in resource files.
func ParseAction(s string) (Action, bool) {
	i := slices.Index(actions[:], s)
	return Action(max(i, 0)), i >= 0
}

// Identity tells limits apart: two with the same identity are the same limit with another amount, action or label.
func (l *Limit) Identity() string {
	return fmt.Sprintf("%d/%s/%s/%d/%q/%q/%q/%q", l.Account, l.Measure, l.Window, l.Anchor, l.Key, l.Model, l.SizeClass, l.Tier)
}

// Same reports whether nothing differs.
func (l *Limit) Same(o *Limit) bool {
	return l.Identity() == o.Identity() && l.Path == o.Path && l.Zone == o.Zone && l.Amount == o.Amount && l.Action == o.Action &&
		l.DegradeTo == o.DegradeTo && slices.Equal(l.Alerts, o.Alerts)
}

// Covers reports whether the limit counts the requests of a subject of its account in a service tier.
func (l *Limit) Covers(s *usage.Subject, tier string) bool {
	return (l.Key == "" || l.Key == s.Key) && (l.Model == "" || l.Model == s.Model) && (l.SizeClass == "" || l.SizeClass == s.SizeClass) &&
		(l.Tier == "" || l.Tier == Tier(tier))
}

// standard is the tier of a request that asks for none.
const standard = "standard"

// Tier returns the service tier that a request is in which asks for this one: "", "auto" and "default" are "standard".
func Tier(asked string) string {
	switch asked {
	case "", "auto", "default":
		return standard
	}
	return asked
}

// Judge decides one hold against the limit.
func (l *Limit) Judge(b Balance, ask money.Amount) Verdict {
	if l.Action == AlertOnly {
		return Fits
	}
	return judge(l.Amount, b, ask)
}

// Alert is a threshold of a limit: it is noticed once in each period that what is used has come to At.
type Alert struct {
	Percent int64        // of the limit's amount; 0 for an amount by itself
	At      money.Amount // above 0
}

// maxPercent bounds a threshold: a limit that only alerts can be passed by far.
const maxPercent = 1000

// ParseAlert reads a threshold of a limit: "80%", or an amount of its measure.
func ParseAlert(m Measure, of money.Amount, text string) (Alert, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 1 || n > maxPercent || strconv.FormatInt(n, 10) != number {
			return Alert{}, fmt.Errorf("alert %q is not a whole percentage from 1%% to %d%%", text, maxPercent)
		}
		return Alert{Percent: n, At: of.Percent(n)}, nil
	}
	a, err := m.ParseAmount(text)
	if err == nil && a.IsZero() {
		err = fmt.Errorf("alert %q would be reached before anything is used", text)
	}
	return Alert{At: a}, err
}

// Text writes a threshold as ParseAlert reads it.
func (a Alert) Text(m Measure) string {
	if a.Percent > 0 {
		return strconv.FormatInt(a.Percent, 10) + "%"
	}
	return m.Format(a.At)
}

// SortAlerts puts thresholds in their order, each amount once; those of an amount of 0 mean nothing and are left out.
func SortAlerts(list []Alert) []Alert {
	list = slices.DeleteFunc(list, func(a Alert) bool { return a.At.IsZero() })
	slices.SortFunc(list, func(a, b Alert) int { return cmp.Or(a.At.Cmp(b.At), cmp.Compare(b.Percent, a.Percent)) })
	return slices.CompactFunc(list, func(a, b Alert) bool { return a.At == b.At })
}
