package tidy

import (
	"slices"
	"strings"
)

// architectureFile has the list of packages that a newcomer reads first.
const architectureFile = "ARCHITECTURE.md"

// architecturePage: the page's list of packages is the real one, in the real order. The list is every line of the code
// blocks under the heading "## Packages" that begins with neither a space nor a #: the package's name, then its sentence.
//
//	## Packages
//	```
//	# words
//	money         exact amounts and rates
//	store/sqlite  the embedded store
//	```
func architecturePage(t *tree) []finding {
	if t.page == "" {
		return []finding{{architectureFile, 1, "the page is missing; write it, with the list of packages"}}
	}
	present := map[string]bool{}
	for _, f := range t.code() {
		if strings.HasPrefix(f.path, "internal/") {
			present[f.pkg] = true
		}
	}
	var order []string
	for _, g := range t.order {
		order = append(order, g.packages...)
	}
	var out []finding
	listed, last, at := map[string]bool{}, -1, 0
	for _, l := range packageLines(t.page) {
		at = l.number
		name, sentence, _ := strings.Cut(l.text, " ")
		rank := slices.Index(order, name)
		switch {
		case !present[name]:
			out = append(out, finding{architectureFile, at, "there is no package " + name})
		case listed[name]:
			out = append(out, finding{architectureFile, at, name + " is listed twice"})
		case strings.TrimSpace(sentence) == "":
			out = append(out, finding{architectureFile, at, name + " has no sentence that says what it is"})
		case rank >= 0 && rank < last:
			out = append(out, finding{architectureFile, at, name + " stands below " + order[last] + ", which may import it; follow the order of house.go"})
		}
		listed[name] = true
		last = max(last, rank)
	}
	if at == 0 {
		return []finding{{architectureFile, 1, `no list of packages: a code block under the heading "## Packages", a line for each`}}
	}
	for _, name := range order {
		if present[name] && !listed[name] {
			out = append(out, finding{architectureFile, at, "package " + name + " is not listed"})
		}
	}
	return out
}

type pageLine struct {
	number int
	text   string
}

// packageLines returns the lines of the list of packages.
func packageLines(page string) (out []pageLine) {
	inSection, inBlock := false, false
	for i, text := range strings.Split(page, "\n") {
		switch {
		case strings.HasPrefix(text, "```"):
			inBlock = !inBlock
		case !inBlock && strings.HasPrefix(text, "## "):
			inSection = strings.TrimSpace(text) == "## Packages"
		case inSection && inBlock && text != "" && text[0] != ' ' && text[0] != '\t' && text[0] != '#':
			out = append(out, pageLine{i + 1, text})
		}
	}
	return out
}
