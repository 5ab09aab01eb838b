package oracle

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/usage"
)

// counts has how often each request was held and settled, by the log itself.
type counts struct{ holds, ends map[usage.ID]int }

func count(store ledger.Reader) (counts, error) {
	n := counts{map[usage.ID]int{}, map[usage.ID]int{}}
	err := store.Snapshot(&ledger.Visitor{
		Meta: func(int64, int64) error { return nil },
		Entry: func(row ledger.EntryRow) error {
			switch row.Kind {
			case ledger.KindHold:
				n.holds[row.Request]++
			case ledger.KindSettle, ledger.KindVoid:
				n.ends[row.Request]++
			}
			return nil
		},
		Head:    func(ledger.HeadRow) error { return nil },
		Balance: func(ledger.BalanceRow) error { return nil },
		Usage:   func(ledger.UsageRow) error { return nil },
	})
	return n, err
}

func (n *counts) ids() []usage.ID {
	var ids []usage.ID
	for id := range n.holds {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// ReadLedger reads a ledger of this process, and its store. chains are the account ids from each organisation down to
// each account whose limits are judged.
func ReadLedger(l *ledger.Ledger, store ledger.Reader, chains [][]account.ID) (Ledger, error) {
	out := Ledger{OpenHolds: l.OpenHolds()}
	n, err := count(store)
	if err != nil {
		return out, err
	}
	for _, id := range n.ids() {
		rec, stood, err := l.Record(id)
		if err != nil {
			return out, err
		}
		var r Record
		if err := json.Unmarshal(rec.AppendJSON(nil), &r); err != nil {
			return out, fmt.Errorf("the receipt of %s: %w", id, err)
		}
		for _, s := range stood {
			r.Stood = append(r.Stood, Stood{string(s.Limit.Path), s.Limit.Measure.String(), s.Limit.Window.String(), s.Limit.Model, s.Period.Label, s.Limit.SizeClass})
		}
		r.Holds, r.Settlements = n.holds[id], n.ends[id]
		out.Records = append(out.Records, r)
	}
	seen := map[string]bool{}
	for _, chain := range chains {
		for _, st := range l.Standings(chain[0], chain) {
			m := st.Limit.Measure
			lim := Limit{
				Stood{string(st.Limit.Path), m.String(), st.Limit.Window.String(), st.Limit.Model, st.Period.Label, st.Limit.SizeClass},
				m.Format(st.Limit.Amount), m.Format(st.Used), m.Format(st.Held),
			}
			if !seen[lim.Name()] {
				seen[lim.Name()] = true
				out.Limits = append(out.Limits, lim)
			}
		}
	}
	err = l.Usage(0, time.Unix(0, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), func(s ledger.Sum) error {
		c := &s.Counts
		out.add(string(s.Subject.AccountPath), s.Requests, c[usage.InputUncached]+c[usage.InputCacheRead]+c[usage.InputCacheWrite],
			c[usage.OutputContent]+c[usage.OutputReasoning], s.Charge.String())
		return nil
	})
	return out, err
}

// add adds to the sum of an account.
func (l *Ledger) add(account string, requests, input, output int64, charge string) {
	i := slices.IndexFunc(l.Sums, func(s Sum) bool { return s.Account == account })
	if i < 0 {
		l.Sums = append(l.Sums, Sum{account, requests, input, output, charge})
		return
	}
	s := &l.Sums[i]
	a, _ := parseFemto(s.Charge)
	b, _ := parseFemto(charge)
	s.Requests, s.Input, s.Output = s.Requests+requests, s.Input+input, s.Output+output
	s.Charge = formatFemto(a.Add(a, b))
}

// Admin is the admin port of a server that runs.
type Admin struct{ URL, Token string }

// Get reads one answer of the admin port.
func (a *Admin) Get(path string, into any) error {
	r, err := http.NewRequest("GET", a.URL+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+a.Token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", path, resp.StatusCode, b)
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	return err
}

// ReadServer reads the ledger of a server that runs: the log's own entries from its file (store), everything else as
// operators see it. accounts are those whose limits are judged. Records that are in known, and settled there, are not
// asked for again.
func ReadServer(a *Admin, store ledger.Reader, accounts []string, known map[string]Record) (Ledger, error) {
	var out Ledger
	n, err := count(store)
	if err != nil {
		return out, err
	}
	for _, id := range n.ids() {
		r, ok := known[id.String()]
		if !ok || r.Status == "held" {
			r = Record{}
			if err := a.Get("/v1/requests/"+id.String(), &r); err != nil {
				return out, err
			}
		}
		r.Holds, r.Settlements = n.holds[id], n.ends[id]
		if known != nil {
			known[r.ID] = r
		}
		out.Records = append(out.Records, r)
	}
	if out.Limits, err = a.Limits(accounts); err != nil {
		return out, err
	}
	if err := a.Get("/v1/usage?by=account", &out.Sums); err != nil {
		return out, err
	}
	var status struct {
		Open int `json:"open_holds"`
	}
	err = a.Get("/v1/status", &status)
	out.OpenHolds = status.Open
	return out, err
}

// Limits reads the limits on the paths of accounts, each once.
func (a *Admin) Limits(accounts []string) ([]Limit, error) {
	var out []Limit
	seen := map[string]bool{}
	for _, account := range accounts {
		var list []Limit
		if err := a.Get("/v1/limits?account="+url.QueryEscape(account), &list); err != nil {
			return nil, err
		}
		for _, l := range list {
			if !seen[l.Name()] {
				seen[l.Name()] = true
				out = append(out, l)
			}
		}
	}
	return out, nil
}
