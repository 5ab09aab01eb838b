package tidy

import (
	"slices"
	"strings"
)

// importOrder: a package imports only what stands above it in the order; a command imports what its list allows.
func importOrder(t *tree) []finding {
	var out []finding
	rank := map[string]int{}
	for _, g := range t.order {
		for _, p := range g.packages {
			rank[p] = len(rank) + 1
		}
	}
	unlisted := map[string]bool{}
	for _, f := range t.code() {
		allowed, isMain := t.mains[f.pkg]
		inside := strings.HasPrefix(f.path, "internal/")
		if inside && rank[f.pkg] == 0 && !unlisted[f.pkg] {
			unlisted[f.pkg] = true
			out = append(out, t.at(f, f.ast, "package %s is not in the order; put it into the list of house.go below all that it imports", f.pkg))
		}
		for _, spec := range f.ast.Imports {
			q, ours := internal(strings.Trim(spec.Path.Value, `"`))
			switch {
			case !ours:
			case isMain && !slices.Contains(allowed, q):
				out = append(out, t.at(f, spec, "%s imports %s; it may import %s only", f.pkg, q, strings.Join(allowed, " and ")))
			case inside && rank[f.pkg] != 0 && rank[q] >= rank[f.pkg]:
				out = append(out, t.at(f, spec, "%s imports %s, which does not stand above it; own a narrow interface here, or move what is shared up", f.pkg, q))
			}
		}
	}
	return out
}

// thirdParties: every module that is not ours or Go's is on the list, is imported where the list says, and is needed.
func thirdParties(t *tree) []finding {
	var out []finding
	needed := map[string]bool{}
	for _, f := range t.files {
		for _, spec := range f.ast.Imports {
			importPath := strings.Trim(spec.Path.Value, `"`)
			first, _, _ := strings.Cut(importPath, "/")
			if !strings.Contains(first, ".") {
				continue // Go's or ours
			}
			i := slices.IndexFunc(t.house.thirdParties, func(p thirdParty) bool {
				return importPath == p.module || strings.HasPrefix(importPath, p.module+"/")
			})
			if i < 0 {
				out = append(out, t.at(f, spec, "%s is on no list; do without it, or add it to the third parties of house.go with its reason", importPath))
				continue
			}
			p := t.house.thirdParties[i]
			needed[p.module] = true
			if !f.test && !slices.Contains(p.in, f.pkg) {
				where := "tests only"
				if len(p.in) > 0 {
					where = strings.Join(p.in, " and ")
				}
				out = append(out, t.at(f, spec, "%s imports %s, which is for %s", f.pkg, importPath, where))
			}
		}
	}
	for _, p := range t.house.thirdParties {
		if !needed[p.module] {
			out = append(out, stale("nothing imports %s", p.module))
		}
	}
	return out
}

// impure are the imports that words and rules do without, with what is under them.
var impure = []string{"context", "os", "net", "sync", "log", "syscall", "runtime", "math/rand", "crypto/rand", "database", "expvar", "plugin", "testing"}

// harmless are the exceptions: they only read and write texts.
var harmless = []string{"net/url", "net/netip"}

// timers are what package time does other than count.
var timers = []string{"Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Local"}

// purity: the packages of pure groups have no I/O, locks, timers, randomness or goroutines.
func purity(t *tree) []finding {
	pure := map[string]bool{}
	for _, g := range t.order {
		for _, p := range g.packages {
			pure[p] = g.pure
		}
	}
	var out []finding
	for _, f := range t.code() {
		if !pure[f.pkg] {
			continue
		}
		for _, spec := range f.ast.Imports {
			p := strings.Trim(spec.Path.Value, `"`)
			bad := slices.ContainsFunc(impure, func(i string) bool { return p == i || strings.HasPrefix(p, i+"/") })
			if bad && !slices.Contains(harmless, p) {
				out = append(out, t.at(f, spec, "%s imports %s; words and rules are pure: take a value as an argument, and let a keeper or an edge do the rest", f.pkg, p))
			}
		}
		for _, u := range f.uses() {
			switch {
			case u.path != "time":
			case slices.Contains(timers, u.name):
				out = append(out, t.at(f, u.node, "%s uses time.%s; words and rules are pure: take the time as an argument", f.pkg, u.name))
			case u.name == "LoadLocation" && f.pkg != "period":
				out = append(out, t.at(f, u.node, `%s uses time.LoadLocation, which takes "" and "Local" for zones; use period.Zone`, f.pkg))
			}
		}
		for _, n := range goStatements(f) {
			out = append(out, t.at(f, n, "%s starts a goroutine; words and rules are pure: return a value, and let a keeper run it", f.pkg))
		}
	}
	return out
}
