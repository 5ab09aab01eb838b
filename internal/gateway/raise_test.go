package gateway_test

import (
	"fmt"
	"net/http"
	"testing"
)

// TestLimitRaisedWhileRefused: F099: clients are refused for a budget that is used up; it is raised, and the very next
// request passes. What was used stays used: lowered again, it refuses again. I5.
func TestLimitRaisedWhileRefused(t *testing.T) {
	r := newRig(t, setup{engines: []string{newEngine(t).URL()}})
	limit := func(tokens int) {
		r.apply(fmt.Sprintf("accounts:\n- {path: acme/small, limits: [{measure: tokens, window: month, amount: %q}]}\n- {path: acme/small/app}\n", fmt.Sprint(tokens)))
	}
	ask := func() int { return r.chat("SMALL", say("p=32 c=20", `,"max_tokens":20`)).status }
	limit(600)
	served := 0
	for status := http.StatusOK; ; served++ {
		if status = ask(); status != http.StatusOK {
			if status != http.StatusPaymentRequired || served == 0 {
				t.Fatalf("after %d answers: status %d", served, status)
			}
			break
		}
	}
	limit(100_000)
	if status := ask(); status != http.StatusOK {
		t.Errorf("raised, the next request is answered with %d", status)
	}
	limit(600)
	if status := ask(); status != http.StatusPaymentRequired {
		t.Errorf("lowered again, the next request is answered with %d", status)
	}
	if requests, input, output := r.totals(); requests != int64(served+1) || input != 32*requests || output != 20*requests {
		t.Errorf("%d requests served; the ledger has %d with %d in and %d out", served+1, requests, input, output)
	}
}
