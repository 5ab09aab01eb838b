package gateway

import (
	"encoding/json"
	"testing"

	"talea/internal/catalog"
	"talea/internal/engine"
	"talea/internal/world"
)

// FuzzParse feeds bodies to the parser and, where it takes them, composes what goes to an engine: that is JSON of the same
// members, with exactly one bound of the output in it, which the hold covers.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"a"}]}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"n":3,"max_tokens":5,"max_completion_tokens":7,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","prompt":["a","b"],"echo":false,"logit_bias":{"1":2},"stop":null}`,
		`{"m\u006fdel":"m","messages":[{}],"tools":[{"function":{"arguments":"{}"}}]}`,
		`{"model":"m","input":[[1,2],[3]],"dimensions":5}`,
	} {
		f.Add([]byte(seed))
	}
	offer := &world.Offer{Model: &catalog.Model{Name: "m", ServedAs: "served", ContextTokens: 4096, MaxOutputTokens: 100, DefaultMaxOutputTokens: 10,
		InputFactorPPM: 1_000_000, MessageTokens: 16}, Account: &world.Account{Salt: "salt"}}
	f.Fuzz(func(t *testing.T, body []byte) {
		for i := range routes {
			ep := &routes[i]
			if ep.metered == "" {
				continue
			}
			for _, d := range engine.Dialects {
				checkBody(t, ep, d, body, offer)
			}
		}
	})
}

func checkBody(t *testing.T, ep *endpoint, d *engine.Dialect, body []byte, offer *world.Offer) {
	x := &exchange{g: &Gateway{}, ep: ep, offer: offer}
	if x.req.parse(ep, body) != nil || x.req.admit(d) != nil {
		return
	}
	var err error
	if x.bounds, err = offer.Model.Bounds(x.req.shape); err != nil {
		return
	}
	sent, _ := x.compose(nil, &backend{dialect: d})
	var was, is map[string]json.RawMessage
	if err := json.Unmarshal(body, &was); err != nil {
		t.Fatalf("%s %s: accepted %q, which encoding/json does not: %v", d.Name, ep.path, body, err)
	}
	if err := json.Unmarshal(sent, &is); err != nil {
		t.Fatalf("%s %s: %q is forwarded as %q: %v", d.Name, ep.path, body, sent, err)
	}
	bounds := 0
	for name, value := range is {
		row := d.Member(ep.kind, []byte(name))
		if row.Rule == engine.OutputMax {
			bounds++
			continue
		}
		if row.Class == engine.Ours || isOurs([]byte(name)) || name == d.SaltMember {
			continue
		}
		if string(value) != string(was[name]) {
			t.Fatalf("%s %s: member %q was %s and is %s", d.Name, ep.path, name, was[name], value)
		}
	}
	if want := d.BoundMember(ep.kind) != ""; (bounds == 1) != want || bounds > 1 {
		t.Fatalf("%s %s: %q is forwarded with %d bounds: %q", d.Name, ep.path, body, bounds, sent)
	}
}
