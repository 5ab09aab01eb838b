package refusal

import (
	"strings"
	"testing"
)

// TestTable: every row is whole, and the rules that clients live by hold for all of them.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for code, row := range Table {
		if row.Name == "" || names[row.Name] {
			t.Errorf("row %d has the name %q, which is empty or another's", code, row.Name)
		}
		names[row.Name] = true
		if Code(code) == None {
			continue
		}
		if row.Type == "" || row.Code == "" || row.Name != strings.ToLower(row.Name) {
			t.Errorf("%s: an incomplete row %+v", row.Name, row)
		}
		if row.Status != 0 && (row.Status < 400 || row.Status > 599) {
			t.Errorf("%s: status %d", row.Name, row.Status)
		}
		// Client libraries stop on 402 after one request, and come again after 429 and 503.
		if row.Status == 402 && (row.Retry || !row.NoRetry) {
			t.Errorf("%s: a 402 that invites to come again", row.Name)
		}
		if (row.Status == 429 || row.Status == 503) && !row.Retry && Code(code) != ModelChanged && Code(code) != ModelQuarantined {
			t.Errorf("%s: a %d without Retry-After", row.Name, row.Status)
		}
	}
	r := At(Malformed, "model", "You must provide a model parameter.")
	if r.Error() != "malformed: You must provide a model parameter." || r.Param != "model" || r.Code.Row().Status != 400 {
		t.Errorf("%+v: %s", r, r)
	}
}
