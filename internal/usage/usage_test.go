package usage

import "testing"

func TestIDText(t *testing.T) {
	last := ID(0)
	for _, id := range []ID{1, 31, 32, 1 << 40, 1<<40 + 1, 1<<62 - 1, 1<<63 - 1} {
		if id.String() <= last.String() {
			t.Fatalf("%s after %s: texts are not ordered as ids", id, last)
		}
		back, err := ParseID(id.String())
		if err != nil || back != id {
			t.Fatalf("ParseID(%s) = %d, %v; want %d", id, back, err, id)
		}
		last = id
	}
	for _, bad := range []string{"", "req_", "req_0000000000000", "req_000000000000u", "req_zzzzzzzzzzzzz", "x", "req_00000000000001"} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%q) = %d, want an error", bad, id)
		}
	}
}

func TestMetersTable(t *testing.T) {
	for m := range NumMeters {
		info := Meters[m]
		if info.Name == "" || info.Price == "" || info.Unit == "" {
			t.Errorf("meter %d has an incomplete row: %+v", m, info)
		}
		if Meters[info.Fallback].Fallback != info.Fallback {
			t.Errorf("meter %s falls back to %s, which has a fallback of its own", m, info.Fallback)
		}
		if got, ok := MeterByName(info.Name); !ok || got != m {
			t.Errorf("MeterByName(%s) = %v %v", info.Name, got, ok)
		}
		if got, ok := MeterByPrice(info.Price); !ok || got != m {
			t.Errorf("MeterByPrice(%s) = %v %v", info.Price, got, ok)
		}
	}
	for f := range numFlags {
		if flagNames[f] == "" {
			t.Errorf("flag bit %d has no name", f)
		}
	}
}

func TestCounts(t *testing.T) {
	var c Counts
	if !c.Empty() || c.Known(InputUncached) {
		t.Fatal("the zero value knows something")
	}
	c.Set(InputUncached, 0)
	if c.Empty() || !c.Known(InputUncached) || c.Known(InputCacheRead) {
		t.Fatal("a reported 0 is not the same as nothing")
	}
	c.Set(InputCacheRead, 3)
	c.Set(OutputReasoning, 5)
	if c.Input() != 3 || c.Output() != 5 {
		t.Fatalf("input %d output %d", c.Input(), c.Output())
	}
	for _, n := range []int64{-1, MaxCount + 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Set(%d) did not panic", n)
				}
			}()
			c.Set(Image, n)
		}()
	}
}
