package usage

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"talea/internal/money"
)

func amountOf(t *testing.T, s string) money.Amount {
	t.Helper()
	a, err := money.ParseAmount(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func postedRecord(t *testing.T) *Record {
	rate, err := money.ParseRate("4.00", 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	r := &Record{Status: Posted, Charge: amountOf(t, "0.00008"), Hold: amountOf(t, "0.004")}
	r.ID, r.Admission.At = 1<<40, time.Date(2026, 11, 24, 3, 4, 5, 678_000_000, time.UTC)
	r.Result.At = r.Admission.At.Add(time.Second)
	r.Subject = &Subject{
		Organisation: 1, Account: 3, AccountPath: "acme/research", Key: "key_good", Currency: "EUR", Book: "public", BookVersion: "3f2a",
		ModelAsked: "m", Model: "m", Labels: []Label{{"cost_centre", "<4711>"}},
	}
	r.Endpoint, r.Bounds, r.PriceRow, r.Multiplier = "chat", Bounds{Input: 90, Output: 1000}, "public@3f2a/m", 1_250_000
	r.Counts.Set(InputUncached, 32)
	r.Counts.Set(OutputContent, 20)
	r.Lines = []Line{{Meter: OutputContent, Quantity: 20, UnitPrice: rate, Amount: rate.Times(20)}, {Meter: Requests, Quantity: 1, Kind: LineMinimum}}
	r.Source, r.Flags, r.Outcome, r.Finish = EngineFinal, FlagClamped|FlagUsageTwice, Completed, "stop"
	r.Engine, r.TotalMicros = "stub", 1500
	r.Attempts = []Attempt{{Engine: "old", Fault: "connect", Micros: 7}, {Engine: "stub", Status: 200, Micros: 1400}}
	return r
}

func TestReceipt(t *testing.T) {
	got := string(postedRecord(t).AppendJSON(nil)) + "\n"
	const file = "testdata/receipt.json"
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("receipt is\n%swant (%s)\n%s", got, file, want)
	}
	if !json.Valid([]byte(got)) {
		t.Error("receipt is not JSON")
	}
}

func TestReceiptOfUnknown(t *testing.T) {
	r := &Record{Admission: Admission{ID: 1, Subject: &Subject{Currency: "EUR"}}, Status: Held}
	r.Counts.Set(InputCacheRead, 0)
	got := string(r.AppendJSON([]byte("before ")))
	for _, want := range []string{
		`before {"request_id":"req_0000000000001","status":"held","at":null,"settled_at":null,`,
		`"usage":{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":null,`, // 0 was reported, null was not
		`"input_uncached":null`, `"lines":[]`, `"charge":null`, `"outcome":"open"`, `"multiplier":null`, `"attempts":[]}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("receipt %s\nlacks %s", got, want)
		}
	}
}
