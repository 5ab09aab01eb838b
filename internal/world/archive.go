package world

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"talea/internal/ledger"
	"talea/internal/price"
)

// Archive is every version of every price book that was ever published, and what else of the world prices depend on that
// no record has. It is read without the secrets of a world.
type Archive struct {
	versions map[string]*price.Book   // by the first 16 digits of their hash, not over their bases
	current  map[string][]*price.Book // by name: the versions that are in force one after the other, over their bases
	families map[string]string        // of models
}

// ReadArchive reads the archive from the stored objects.
func ReadArchive(objects []ledger.Object) (*Archive, error) {
	a := &Archive{versions: map[string]*price.Book{}, current: map[string][]*price.Book{}, families: map[string]string{}}
	names := map[string][]string{}
	for _, o := range objects {
		var err error
		switch {
		case o.Body == nil:
		case o.Kind == kindVersion:
			var b *price.Book
			if b, err = price.ParseCanonical(o.Body); err == nil {
				a.versions[b.Version[:16]] = b
			}
		case o.Kind == kindBook:
			var body bookBody
			err = json.Unmarshal(o.Body, &body)
			names[o.Name] = body.Versions
		case o.Kind == kindModel:
			var body struct{ Family string }
			err = json.Unmarshal(o.Body, &body)
			a.families[o.Name] = body.Family
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read stored %s %q: %w", o.Kind, o.Name, err)
		}
	}
	var books []*price.Book
	for _, versions := range names {
		for _, v := range versions {
			if b := a.versions[v[:min(16, len(v))]]; b != nil {
				books = append(books, b)
			}
		}
	}
	for _, b := range price.Link(books, func(*price.Book, error) {}) {
		a.current[b.Name] = append(a.current[b.Name], b)
	}
	for _, list := range a.current {
		slices.SortFunc(list, func(a, b *price.Book) int { return a.From.Compare(b.From) })
	}
	return a, nil
}

// Version returns the version whose hash begins with a prefix, over no base; nil where there is none or more than one.
func (a *Archive) Version(prefix string) (found *price.Book) {
	if len(prefix) >= 16 {
		if b := a.versions[prefix[:16]]; b != nil && strings.HasPrefix(b.Version, prefix) {
			return b
		}
		return nil
	}
	for _, b := range a.versions {
		if strings.HasPrefix(b.Version, prefix) {
			if found != nil {
				return nil
			}
			found = b
		}
	}
	return found
}

// Book returns the published versions of a price book, one after the other in time; none where there is none.
func (a *Archive) Book(name string) []*price.Book { return a.current[name] }

// BookNames returns the names of all published price books, in order.
func (a *Archive) BookNames() []string {
	var names []string
	for name := range a.current {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Family returns the family of a model as it is published now, "" for none.
func (a *Archive) Family(model string) string { return a.families[model] }
