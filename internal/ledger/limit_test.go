package ledger_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/period"
	"talea/internal/quota"
	"talea/internal/usage"
)

// TestLimitKeepsWhatWasUsed: a limit is the same one whatever becomes of its amount, through restarts too.
func TestLimitKeepsWhatWasUsed(t *testing.T) {
	limit := func(n int64) quota.Limit { return limitOn(research, quota.Tokens, period.Month, units(n)) }
	r := newRig(t, limit(100))
	r.spend(30, 30)
	again := func() {
		t.Helper()
		r.check()
		r.restart()
		r.check()
	}

	r.publish(limit(200)) // raised
	r.stands(research, 0, "60", "0")
	r.spend(50, 50)
	again()

	r.publish(limit(50)) // lowered below what is used
	r.refused(r.ask(1, 0), quota.Exhausted, research)
	if by, cause := r.l.Standings(acme, chatChain)[0].OverLimit(); by != units(110) || cause != "lowered" {
		t.Errorf("over the limit by %s, %s", quota.Tokens.Format(by), cause)
	}
	again()

	r.publish() // removed
	if s := r.l.Standings(acme, chatChain); len(s) != 0 {
		t.Errorf("standings of a removed limit: %+v", s)
	}
	r.spend(1000, 1000)
	again()

	r.publish(limit(161)) // there again
	r.stands(research, 0, "160", "0")
	again()
	r.refused(r.ask(1, 1), quota.Exhausted, research)
	r.spend(1, 0)
	r.stands(research, 0, "161", "0")
	r.check()
}

// TestLowerWhileHeld: what runs goes on, nothing new is granted.
func TestLowerWhileHeld(t *testing.T) {
	r := newRig(t, limitOn(acme, quota.Tokens, period.Day, units(100)))
	h := r.hold(40, 40)
	r.publish(limitOn(acme, quota.Tokens, period.Day, units(50)))
	r.refused(r.ask(10, 10), quota.Contended, acme)
	r.settle(h, completed(40, 40))
	r.refused(r.ask(1, 0), quota.Exhausted, acme)
	r.stands(acme, 0, "80", "0")
	r.check()
}

// TestRename: the path of a node is a label. Requests that were prepared under the old one are bound all the same.
func TestRename(t *testing.T) {
	limit := limitOn(research, quota.RequestCount, period.Day, units(2))
	r := newRig(t, limit)
	r.spend(1, 1)
	limit.Path = "acme/science"
	r.publish(limit)
	r.spend(1, 1) // still says acme/research/chat
	short := r.refused(r.ask(1, 1), quota.Exhausted, research)
	if short.Limit.Path != "acme/science" {
		t.Errorf("refused by %s", short.Limit.Path)
	}
	r.check()
}

func TestRefusedPublications(t *testing.T) {
	good := limitOn(acme, quota.Tokens, period.Day, units(1))
	for name, spoil := range map[string]func(*quota.Limit){
		"not known":        func(l *quota.Limit) { l.Zone = "Mars/Olympus" },
		"not an IANA":      func(l *quota.Limit) { l.Zone = "" },
		"negative":         func(l *quota.Limit) { l.Amount = units(-1) },
		"without a number": func(l *quota.Limit) { l.Org = 0 },
		"measure 200":      func(l *quota.Limit) { l.Measure = 200 },
		"window 0":         func(l *quota.Limit) { l.Window = 0 },
		"same measure":     func(*quota.Limit) {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			bad := good
			spoil(&bad)
			limits := []quota.Limit{limitOn(sales, quota.Tokens, period.Day, units(1)), bad}
			if name == "same measure" {
				limits = append(limits, bad)
			}
			err := r.l.Publish(context.Background(), ledger.Publication{Limits: limits, Objects: []ledger.Object{{Kind: "model", Name: "m", ID: 1}}})
			if err == nil || !strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), "unknown") {
				t.Errorf("error %v", err)
			}
			objects, _ := r.l.Objects()
			if n := len(r.l.Standings(acme, []account.ID{acme, sales})); n != 0 || len(objects) != 0 {
				t.Errorf("%d limits and %d objects were published all the same", n, len(objects))
			}
		})
	}
}

func TestObjects(t *testing.T) {
	r := newRig(t)
	publish := func(objects ...ledger.Object) {
		t.Helper()
		if err := r.l.Publish(context.Background(), ledger.Publication{Objects: objects}); err != nil {
			t.Fatal(err)
		}
	}
	publish(ledger.Object{Kind: "model", Name: "b", ID: 1, ManagedBy: "file", Body: []byte(`{"x":1}`)}, ledger.Object{Kind: "engine", Name: "a", ID: 1, ManagedBy: "api", Body: []byte("{}")})
	publish(ledger.Object{Kind: "model", Name: "b", ID: 1, ManagedBy: "api", Body: []byte(`{"x":2}`)}, ledger.Object{Kind: "engine", Name: "a", ID: 1, ManagedBy: "api"})
	r.restart()
	objects, err := r.l.Objects()
	if err != nil || len(objects) != 2 {
		t.Fatalf("%+v, %v", objects, err)
	}
	if o := objects[0]; o.Kind != "engine" || o.Body != nil {
		t.Errorf("a deleted object is %+v", o)
	}
	if o := objects[1]; o.Name != "b" || string(o.Body) != `{"x":2}` || o.ManagedBy != "api" {
		t.Errorf("a changed object is %+v", o)
	}
}

// TestRefusals: a "no" is kept and found again, after the next group.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	id := r.minter.Mint(noon)
	r.l.Refuse(id, []byte(`{"code":"budget_reached"}`))
	r.spend(1, 1)
	r.restart()
	if body, err := r.l.Refusal(id); err != nil || string(body) != `{"code":"budget_reached"}` {
		t.Errorf("%s, %v", body, err)
	}
	if body, err := r.l.Refusal(id + 1); body != nil || err != nil {
		t.Errorf("%s, %v", body, err)
	}
	r.check()
}

// TestUsageSums: by subject and quarter of an hour of the admission, over restarts.
func TestUsageSums(t *testing.T) {
	r := newRig(t)
	h := r.hold(100, 100) // 11:30
	r.clock.advance(15 * time.Minute)
	r.settle(h, completed(10, 20))
	r.spend(1, 2) // 11:45
	r.settle(r.hold(1, 1), ended(usage.Unserved, 0, 0))
	r.restart()
	r.spend(4, 8)
	other, err := r.l.Hold(context.Background(), r.askAs(r.sales, salesChain, 7, 7))
	if err != nil {
		t.Fatal(err)
	}
	r.settle(other, completed(7, 7))

	type row struct {
		path                      string
		minute                    int
		requests, voided, in, out int64
		charge                    string
	}
	var got []row
	err = r.l.Usage(acme, noon.Add(-time.Hour), noon.Add(time.Hour), func(s ledger.Sum) error {
		got = append(got, row{string(s.Subject.AccountPath), s.Start.Minute(), s.Requests, s.Voided, s.Counts[usage.InputUncached], s.Counts[usage.OutputContent], s.Charge.String()})
		return nil
	})
	want := []row{
		{"acme/research/chat", 30, 1, 0, 10, 20, "0.00005"},
		{"acme/research/chat", 45, 2, 1, 5, 10, "0.000025"},
		{"acme/sales", 45, 1, 0, 7, 7, "0.000021"},
	}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("row %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	none := 0
	if err := r.l.Usage(acme, noon.Add(-time.Hour), noon, func(ledger.Sum) error { none++; return nil }); err != nil || none != 0 {
		t.Errorf("%d rows before the first request, %v", none, err)
	}
	r.check()
}
