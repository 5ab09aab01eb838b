package world

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Action is what happens to an object: "create", "update", "delete" or "unchanged".
type Action string

const (
	created   Action = "create"
	updated   Action = "update"
	deleted   Action = "delete"
	unchanged Action = "unchanged"
)

// Change is one line of a plan.
type Change struct {
	Action Action `json:"action"`
	Kind   string `json:"kind"` // "engine", "model", "price_book", "account", "key"
	Name   string `json:"name"` // path of an account
	Detail string `json:"detail,omitempty"`
}

// Plan is what applying a source does to the world.
type Plan struct {
	Changes []Change `json:"changes"`         // by kind in the order of their building, then by name; unchanged objects of the source included
	Notes   []string `json:"notes,omitempty"` // what is allowed and probably not meant
}

// Empty reports whether nothing changes.
func (p *Plan) Empty() bool {
	return !slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Action != unchanged })
}

// String returns the plan for people: a line for each change, the notes, and the sums.
func (p *Plan) String() string {
	var b strings.Builder
	count := map[Action]int{}
	for _, c := range p.Changes {
		count[c.Action]++
		if c.Action == unchanged {
			continue
		}
		fmt.Fprintf(&b, "%-6s  %-10s  %s", c.Action, c.Kind, c.Name)
		if c.Detail != "" {
			fmt.Fprintf(&b, "  (%s)", c.Detail)
		}
		b.WriteByte('\n')
	}
	for _, note := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	fmt.Fprintf(&b, "%d to create, %d to update, %d to delete, %d unchanged\n", count[created], count[updated], count[deleted], count[unchanged])
	return b.String()
}

// order sorts the changes.
func (p *Plan) order() {
	slices.SortStableFunc(p.Changes, func(a, b Change) int {
		return cmp.Or(slices.Index(kinds, a.Kind)-slices.Index(kinds, b.Kind), cmp.Compare(a.Name, b.Name))
	})
}

// unshown are the members of bodies whose values say nothing to people, and what is said when they change.
var unshown = map[string]string{"hash": "another secret", "api_key_sealed": "another api_key", "created": "", "public": "", "versions": "another version"}

// difference says which members of two bodies differ, and how, where that is short.
func difference(kind string, old, now []byte) string {
	var before, after map[string]json.RawMessage
	if json.Unmarshal(old, &before) != nil || json.Unmarshal(now, &after) != nil {
		panic("world: a stored " + kind + " is no JSON object")
	}
	names := map[string]bool{}
	for name := range before {
		names[name] = true
	}
	for name := range after {
		names[name] = true
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := string(before[name]), string(after[name])
		called, hidden := unshown[name]
		switch {
		case was == is || hidden && called == "":
		case hidden:
			parts = append(parts, called)
		case len(was)+len(is) > 80:
			parts = append(parts, name)
		default:
			parts = append(parts, fmt.Sprintf("%s: %s → %s", name, cmp.Or(was, "none"), cmp.Or(is, "none")))
		}
	}
	return strings.Join(parts, ", ")
}
