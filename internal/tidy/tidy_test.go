package tidy

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTree is the rules on the real tree.
func TestTree(t *testing.T) {
	tr := newTree(talea)
	if err := tr.load(os.DirFS("../..")); err != nil {
		t.Fatal(err)
	}
	if len(tr.files) < 10 {
		t.Fatalf("only %d files were found: this is not the tree", len(tr.files))
	}
	for _, f := range tr.check() {
		t.Error(f)
	}
}

// small is the house of the planted faults.
func small() house {
	return house{
		order:        []group{{"words", true, []string{"money", "usage"}}, {"keepers", false, []string{"ledger", "store/sqlite", "gateway", "cli", "util"}}},
		mains:        map[string][]string{"cmd/talea": {"cli"}},
		clocks:       []string{"cli"},
		environments: []string{"cli"},
		noFloats:     []string{"money", "ledger"},
		rounders:     []string{"money"},
		errorWriters: []string{"internal/gateway/error.go"},
	}
}

// planted is one fault, or its innocent twin, which has no want.
type planted struct {
	rule  string
	house func(*house)
	files string   // each begins with a line "-- path --", which is not counted
	want  []string // the beginnings of the findings: path:line: text
}

func TestPlantedFaults(t *testing.T) {
	fires := map[string]bool{}
	for _, p := range slices.Concat(importFaults, callFaults, nameFaults, exportFaults, otherFaults) {
		h := small()
		if p.house != nil {
			p.house(&h)
		}
		tr := newTree(h)
		for _, part := range strings.Split("\n"+p.files, "\n-- ")[1:] {
			name, text, _ := strings.Cut(part, " --\n")
			if err := tr.add(name, text); err != nil {
				t.Fatalf("%s: %v", p.rule, err)
			}
		}
		var got []string
		for _, f := range rules[p.rule](tr) {
			got = append(got, f.String())
		}
		slices.Sort(got)
		fires[p.rule] = fires[p.rule] || len(p.want) > 0
		if !slices.EqualFunc(got, p.want, strings.HasPrefix) {
			t.Errorf("%s\n%s\n got %s\nwant %s", p.rule, p.files, strings.Join(got, "\n     "), strings.Join(p.want, "\n     "))
		}
	}
	for name := range maps.Keys(rules) {
		if !fires[name] {
			t.Errorf("no fault is planted for the rule %q", name)
		}
	}
}

var importFaults = []planted{
	{"import order", nil, `-- internal/usage/a.go --
package usage
import (
	"talea/internal/ledger"
	"talea/internal/money"
)`, []string{"internal/usage/a.go:3: usage imports ledger, which does not stand above it"}},
	{"import order", nil, `-- internal/usage/a_test.go --
package usage
import "talea/internal/ledger"`, nil},
	{"import order", nil, `-- internal/route/a.go --
package route
-- internal/route/b.go --
package route`, []string{"internal/route/a.go:1: package route is not in the order"}},
	{"import order", nil, `-- cmd/talea/main.go --
package main
import "talea/internal/cli"
import "talea/internal/ledger"`, []string{"cmd/talea/main.go:3: cmd/talea imports ledger; it may import cli only"}},
	{"third parties", nil, `-- internal/usage/a.go --
package usage
import "net/http"
import "example.org/left/pad"`, []string{"internal/usage/a.go:3: example.org/left/pad is on no list"}},
	{"third parties", func(h *house) {
		h.thirdParties = []thirdParty{{"example.org/yaml", []string{"money"}, "yes"}, {"example.org/rapid", nil, "yes"}, {"example.org/gone", nil, "no"}}
	}, `-- internal/money/a.go --
package money
import "example.org/yaml/v3"
import "example.org/rapid"
-- internal/usage/a.go --
package usage
import "example.org/yaml"
-- internal/usage/a_test.go --
package usage
import "example.org/rapid"
import "example.org/yaml"`, []string{
		"internal/money/a.go:3: money imports example.org/rapid, which is for tests only",
		houseFile + ":1: nothing imports example.org/gone",
		"internal/usage/a.go:2: usage imports example.org/yaml, which is for money",
	}},
	{"purity", nil, `-- internal/money/a.go --
package money
import (
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"osprey"
)`, []string{"internal/money/a.go:3: money imports net/http;", "internal/money/a.go:5: money imports os;", "internal/money/a.go:6: money imports sync/atomic;"}},
	{"purity", nil, `-- internal/money/a.go --
package money
import "time"
func f(d time.Duration) {
	time.Sleep(d)
	go f(d)
	_ = time.Local
	_, _ = time.LoadLocation("Local")
}`, []string{
		"internal/money/a.go:4: money uses time.Sleep;", "internal/money/a.go:5: money starts a goroutine;",
		"internal/money/a.go:6: money uses time.Local;", "internal/money/a.go:7: money uses time.LoadLocation,",
	}},
	{"purity", nil, `-- internal/ledger/a.go --
package ledger
import "sync"
import "time"
func f() { go f(); time.Sleep(1) }
-- internal/money/a_test.go --
package money
import "os"`, nil},
}

var callFaults = []planted{
	{"clock", nil, `-- internal/ledger/a.go --
package ledger
import "time"
var now = time.Now
func f(t time.Time) time.Duration { return time.Since(t) }
-- internal/ledger/a_test.go --
package ledger
import "time"
var then = time.Now()
-- internal/cli/a.go --
package cli
import "time"
var now = time.Now()`, []string{"internal/ledger/a.go:3: ledger reads the clock by time.Now;", "internal/ledger/a.go:4: ledger reads the clock by time.Since;"}},
	{"clock", func(h *house) { h.clockReaders = map[string]string{"ledger": "measures", "gateway": "measured once"} }, `-- internal/ledger/a.go --
package ledger
import "time"
var now = time.Now
-- internal/gateway/a.go --
package gateway`, []string{houseFile + ":1: gateway does not read the clock"}},
	{"environment", nil, `-- internal/ledger/a.go --
package ledger
import sys "os"
var home = sys.Getenv("HOME")
-- internal/cli/a.go --
package cli
import "os"
var home = os.Getenv("HOME")`, []string{"internal/ledger/a.go:3: os.Getenv in ledger reads the environment;"}},
	{"http errors", nil, `-- internal/gateway/serve.go --
package gateway
import "net/http"
func f(w http.ResponseWriter, status int) {
	http.Error(w, "no", 400)
	w.WriteHeader(http.StatusBadGateway)
	w.WriteHeader(502)
	w.WriteHeader(http.StatusOK)
	w.WriteHeader(200)
	w.WriteHeader(status)
}
-- internal/gateway/error.go --
package gateway
import "net/http"
func g(w http.ResponseWriter) { http.Error(w, "no", 400); w.WriteHeader(502) }
-- internal/gateway/a_test.go --
package gateway
import "net/http"
func h(w http.ResponseWriter) { http.Error(w, "no", 400) }`, []string{
		"internal/gateway/serve.go:4: net/http.Error in gateway writes an error answer", "internal/gateway/serve.go:5: gateway answers with an error status",
		"internal/gateway/serve.go:6: gateway answers with an error status",
	}},
	{"floats", nil, `-- internal/money/a.go --
package money
import (
	"math"
	"strconv"
	"time"
)
type price struct{ f float64 }
var tenth = 0.1
var half, _ = strconv.ParseFloat("0.5", 64)
func f(d time.Duration) int { return int(d.Seconds()) }
var up = math.Ceil(3)
var most = math.MaxInt64
const whole = 1_000_000
func seconds(d time.Duration) int { return int(d / time.Second) }
-- internal/cli/a.go --
package cli
var width float64 = 0.5
-- internal/money/a_test.go --
package money
var tolerance = 0.5`, []string{
		"internal/money/a.go:10: Seconds() in money is a float", "internal/money/a.go:11: math.Ceil in money", "internal/money/a.go:7: float64 in money",
		"internal/money/a.go:8: the float 0.1 in money", "internal/money/a.go:9: ParseFloat in money",
	}},
	{"rounding", nil, `-- internal/ledger/a.go --
package ledger
func f(a amount, d duration) { a.Round(2, halfEven); d.Round(second) }
-- internal/money/a.go --
package money
func f(a amount) { a.Round(2, halfEven) }`, []string{"internal/ledger/a.go:2: ledger rounds an amount;"}},
	{"no init", nil, `-- internal/ledger/a.go --
package ledger
func (x T) init() {}
func init() {}`, []string{"internal/ledger/a.go:3: ledger has an init function;"}},
	{"function length", nil, "-- internal/ledger/a.go --\npackage ledger\n// A comment is not counted.\nfunc f() {" + strings.Repeat("\n", 69) + "}\nfunc (x *T[K]) g() {" + strings.Repeat("\n", 70) + "}",
		[]string{"internal/ledger/a.go:73: ledger.T.g has 71 lines; at most 70"}},
	{"function length", func(h *house) {
		h.long = map[string]longFunction{"ledger.same": {72, ""}, "ledger.grown": {72, ""}, "ledger.shrunk": {73, ""}, "ledger.short": {80, ""}, "ledger.gone": {80, ""}}
	}, "-- internal/ledger/a.go --\npackage ledger\nfunc same() {" + strings.Repeat("\n", 71) + "}\nfunc grown() {" + strings.Repeat("\n", 72) + "}\nfunc shrunk() {" + strings.Repeat("\n", 71) + "}\nfunc short() {}",
		[]string{
			"internal/ledger/a.go:74: ledger.grown has 73 lines; at most 72", houseFile + ":1: ledger.short has 1 lines; take it off the list",
			houseFile + ":1: ledger.shrunk has got shorter: write 72", houseFile + ":1: there is no function ledger.gone",
		}},
}

var nameFaults = []planted{
	{"package comments", nil, `-- internal/money/a.go --
// Package money is exact amounts. It does not convert currencies (billing does).
//
// # Invariants
//
//   - Nothing is lost.
//
// Start reading at Amount.
package money
-- internal/money/b.go --
package money
-- cmd/talea/main.go --
// Command talea is the tool.
package main
-- internal/usage/a.go --
// Package usage counts. It holds everything.
//
// # Invariants
//
// Start reading.
package usage
-- internal/ledger/a.go --
package ledger
-- internal/gateway/a.go --
// Package gateway is one thing, not two.
package gateway
-- internal/gateway/b.go --
// The gateway is another.
package gateway
-- internal/cli/a.go --
// The tool. It does not serve.
//
// # Invariants
//
//   - One.
//
// Start reading at Run.
package cli
-- internal/admin/a_test.go --
package admin`, []string{
		`internal/cli/a.go:1: the comment of package cli does not begin with a sentence "Package cli …"`,
		"internal/gateway/a.go:2: package gateway has 2 package comments",
		"internal/ledger/a.go:1: package ledger has 0 package comments",
		"internal/usage/a.go:1: the comment of package usage does not end with",
		"internal/usage/a.go:1: the comment of package usage does not say in its first paragraph what",
		`internal/usage/a.go:1: the comment of package usage has no "# Invariants"`,
	}},
	{"empty names", nil, `-- internal/util/helpers.go --
package util
type poolManager struct{}
type model struct{}
-- internal/store/sqlite/types_test.go --
package sqlite
-- internal/ledger/ledger.go --
package ledger
type Service interface{}`, []string{
		"internal/ledger/ledger.go:2: type Service has a name", "internal/store/sqlite/types_test.go:1: file types.go has a name",
		"internal/util/helpers.go:1: file helpers.go has a name", "internal/util/helpers.go:1: package util has a name", "internal/util/helpers.go:2: type poolManager has a name",
	}},
	{"documented exports", nil, `-- internal/money/a.go --
package money

// Amount is an exact amount.
type Amount struct{ Hi int64 }

// Adds b.
func (a Amount) Add(b Amount) Amount { return a }

// Sub returns a − b.
func (a Amount) Sub(b Amount) Amount { return a }
func Parse() {}
func parse() {}
func (x inner) Do() {}
type inner struct{}
type Rate int
type (
	// A Mode is how to round.
	Mode int
	Unit int
)
// Store is where amounts are.
type Store interface {
	// Get returns 0 for an absent one.
	Get() int
	Put()
	Close() // at most once
}
// The modes.
const (
	Even Mode = iota
	Away
)
const Max = 5
var Min = 3 // the least
-- internal/money/a_test.go --
package money
func Help() {}
-- cmd/talea/main.go --
package main
func Main() {}`, []string{
		"internal/money/a.go:11: Parse has no comment", "internal/money/a.go:15: type Rate has no comment", "internal/money/a.go:19: type Unit has no comment",
		"internal/money/a.go:25: Store.Put has no comment", "internal/money/a.go:33: Max has no comment", "internal/money/a.go:7: Amount.Add has no comment that begins with its name",
	}},
}

var exportFaults = []planted{
	{"used exports", nil, `-- internal/money/a.go --
package money
type Amount struct{ Unit Currency; mode Inner }
type Currency string
type Mode int
type Inner int
const (
	Even Mode = iota
	Away
)
const (
	One = 1
	Two = 2
)
var Table = []Row{}
type Row struct{}
func Parse(o Option) Amount { return Amount{} }
type Option int
func Unused() {}
func (a Amount) Add() { a.Sub(); a.Near() }
func (a Amount) Sub() {}
func (a Amount) Near() {}
func (a Amount) String() string { return "" }
-- internal/money/a_test.go --
package money_test
import "talea/internal/money"
var _ = money.Unused
-- internal/usage/a.go --
package usage
import m "talea/internal/money"
var x = m.Parse(0)
var y = x.Add(m.Away)
type nearer interface{ Near() }
-- internal/usage/a_test.go --
package usage
import "talea/internal/money"
var z = money.Table`, []string{
		"internal/money/a.go:11: no other package uses money.One or any of its group;",
		"internal/money/a.go:18: no other package uses money.Unused;", "internal/money/a.go:20: no other package uses money.Amount.Sub;",
		"internal/money/a.go:5: no other package uses money.Inner;",
	}},
	{"used exports", func(h *house) {
		h.unused = map[string]string{"money.A": "for later", "money.B": "for later", "money.C": "for later", "money.D": "a group"}
	}, `-- internal/money/a.go --
package money
func A() {}
func B() {}
const (
	D = 1
	E = 2
)
-- internal/usage/a.go --
package usage
import "talea/internal/money"
var b = money.B`, []string{houseFile + ":1: money.B is used; take it off the list", houseFile + ":1: there is no money.C; take it off the list"}},
}

var otherFaults = []planted{
	{"architecture page", nil, `-- internal/money/a.go --
package money
-- internal/usage/a.go --
package usage
-- internal/store/sqlite/a.go --
package sqlite
-- internal/ledger/a_test.go --
package ledger
-- ARCHITECTURE.md --
# Architecture
` + "```" + `
gateway  in another section
` + "```" + `
## Packages
Words, then keepers.
` + "```" + `
# words
usage         what was used
  and more about it
money         exact amounts
gateway       not yet
usage         again
` + "```" + `
## After
` + "```" + `
cli  in another section
` + "```", []string{
		"ARCHITECTURE.md:11: money stands below usage, which may import it", "ARCHITECTURE.md:12: there is no package gateway",
		"ARCHITECTURE.md:13: package store/sqlite is not listed", "ARCHITECTURE.md:13: usage is listed twice",
	}},
	{"architecture page", nil, `-- internal/money/a.go --
package money
-- internal/store/sqlite/a.go --
package sqlite
-- ARCHITECTURE.md --
## Packages
` + "```" + `
money
store/sqlite  the embedded store
` + "```", []string{"ARCHITECTURE.md:3: money has no sentence"}},
	{"architecture page", nil, `-- internal/money/a.go --
package money
-- ARCHITECTURE.md --
# Architecture`, []string{"ARCHITECTURE.md:1: no list of packages"}},
	{"architecture page", nil, `-- internal/money/a.go --
package money`, []string{"ARCHITECTURE.md:1: the page is missing"}},
	{"tests assert", nil, `-- internal/money/a_test.go --
package money
import (
	"testing"
	"testing/synctest"
	"pgregory.net/rapid"
)
func TestNothing(t *testing.T) {
	t.Log(err.Error())
	t.Helper()
}
func TestNothingInside(t *testing.T) { t.Run("a", func(t *testing.T) { t.Log() }) }
func TestNothingInBubble(t *testing.T) { synctest.Test(t, func(t *testing.T) { work() }) }
func TestDirect(t *testing.T) { if x { t.Error("no") } }
func TestInside(t *testing.T) { t.Run("a", func(tt *testing.T) { tt.Fatal() }) }
func TestInBubble(t *testing.T) { synctest.Test(t, func(t *testing.T) { t.Error() }) }
func TestHelped(t *testing.T) { check(t, 5) }
func TestProperty(t *testing.T) { rapid.Check(t, property) }
func TestSuite(t *testing.T) { t.Run("a", suite) }
func TestMain(m *testing.M) { m.Run() }
func (s suite) TestMethod(t *testing.T) {}
func FuzzNothing(f *testing.F) {}`, []string{
		"internal/money/a_test.go:11: TestNothingInside cannot fail", "internal/money/a_test.go:12: TestNothingInBubble cannot fail", "internal/money/a_test.go:7: TestNothing cannot fail",
	}},
}
