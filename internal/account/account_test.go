package account

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, good := range []string{"acme", "acme/research", "a1/b-2/c_3/d.4", "0/1", strings.Repeat("a/", 15) + "a"} {
		if p, err := Parse(good); err != nil || string(p) != good {
			t.Errorf("Parse(%q) = %q, %v", good, p, err)
		}
	}
	for _, bad := range []string{"", "/", "acme/", "/acme", "a//b", "Acme", "a b", "-a", "a/../b", "a/é", strings.Repeat("a/", 16) + "a", strings.Repeat("a", 256), "a\x00", "a%"} {
		if p, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %q, want an error", bad, p)
		}
	}
}

func TestPath(t *testing.T) {
	p := Path("acme/research/chat")
	if p.Parent() != "acme/research" || p.Organisation() != "acme" || Path("acme").Parent() != "" || Path("acme").Organisation() != "acme" {
		t.Errorf("parent %q, organisation %q", p.Parent(), p.Organisation())
	}
	for top, want := range map[Path]bool{"acme": true, "acme/research": true, "acme/research/chat": true, "acme/res": false, "other": false, "acme/research/chat/x": false} {
		if p.Within(top) != want {
			t.Errorf("%s within %s: %v", p, top, !want)
		}
	}
	if Path("acme").Level() != "organisation" || p.Level() != "department" {
		t.Error("levels")
	}
}
