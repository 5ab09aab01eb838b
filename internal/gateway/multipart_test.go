package gateway_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestMultipart: F120: forms of many parts, and one that never ends, are no JSON: refused, and no engine sees them. I13.
func TestMultipart(t *testing.T) {
	e := newEngine(t)
	r := newRig(t, setup{engines: []string{e.URL()}})
	const part = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n"
	for name, body := range map[string]string{
		"10^5 parts":     strings.Repeat(part, 100_000) + "--b--\r\n",
		"no end":         part,
		"no part":        "--b--\r\n",
		"JSON in a part": "--b\r\nContent-Type: application/json\r\n\r\n" + say("c=5", "") + "\r\n--b--\r\n",
	} {
		p := r.chat("GOOD", body, "Content-Type", "multipart/form-data; boundary=b")
		if p.status != http.StatusBadRequest || p.code(t) != "invalid_request_error" {
			t.Errorf("%s: status %d, code %q", name, p.status, p.code(t))
		}
	}
	if n := e.Totals().Requests; n != 0 || r.ledger.OpenHolds() != 0 {
		t.Errorf("engines saw %d requests, %d holds are open", n, r.ledger.OpenHolds())
	}
}
