package rerate

import (
	"strings"

	"talea/internal/price"
	"talea/internal/resource"
)

// ParseDraft reads one price book of a resource file, whatever else that has: the one of a name, or the only one.
func ParseDraft(file string, text []byte, name string) (*price.Book, error) {
	doc, err := resource.Parse(file, text)
	if err != nil {
		return nil, err
	}
	var found []*price.Book
	var names []string
	for _, n := range doc.Section("price_books") {
		b, err := price.Parse(n)
		if err != nil {
			return nil, err
		}
		names = append(names, b.Name)
		if name == "" || b.Name == name {
			found = append(found, b)
		}
	}
	switch {
	case len(names) == 0:
		return nil, mistaken("%s has no price_books", file)
	case len(found) == 0:
		return nil, mistaken("%s has no price book %q, but %s", file, name, strings.Join(names, ", "))
	case len(found) > 1:
		return nil, mistaken("%s has the price books %s: say one with --book, which has one version there", file, strings.Join(names, ", "))
	}
	return found[0], nil
}
