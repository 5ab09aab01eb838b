package rerate

import (
	"strings"
	"time"

	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/resource"
	"talea/internal/usage"
	"talea/internal/world"
)

// under says which prices a request is rated under.
type under struct {
	archive  *world.Archive
	label    string
	books    []*price.Book          // in the order of time; none: the original prices
	replaces string                 // not "": only requests of a book of this name, or one based on it
	over     map[string]*price.Book // by version: books that are based on it, over it
}

// choose finds the prices that a call asks for.
func choose(a *world.Archive, c *Call) (*under, error) {
	u := &under{archive: a, over: map[string]*price.Book{}}
	if c.Draft != nil {
		draft := c.Draft.Always()
		if draft.Base != "" {
			base := a.Book(draft.Base)
			if len(base) == 0 {
				return nil, mistaken("price book %s is based on %q, which is not published", draft.Name, draft.Base)
			}
			draft = draft.Over(base)
		}
		if c.Replace && len(a.Book(draft.Name)) > 0 {
			u.replaces = draft.Name
		}
		u.books, u.label = []*price.Book{draft}, label(draft)
		return u, nil
	}
	name, version, pinned := strings.Cut(c.Book, "@")
	if name == "" {
		return u, nil
	}
	u.books = a.Book(name)
	if pinned {
		b := a.Version(version)
		if b == nil || b.Name != name {
			return nil, mistaken("there is no version %q of price book %s, or more than one begins so", version, name)
		}
		if b = b.Always(); b.Base != "" {
			b = b.Over(a.Book(b.Base))
		}
		u.books = []*price.Book{b}
	}
	if len(u.books) == 0 {
		hint := ""
		if near := resource.Nearest(name, a.BookNames()); near != "" {
			hint = "; did you mean " + near + "?"
		}
		return nil, mistaken("there is no price book %q%s", name, hint)
	}
	var labels []string
	for _, b := range u.books {
		labels = append(labels, label(b))
	}
	u.label = strings.Join(labels, ",")
	return u, nil
}

func label(b *price.Book) string { return b.Name + "@" + b.Version[:16] }

// of returns the book that a request is rated under, nil for the one it was rated under. The version that was in force at
// its admission counts, however late it was settled.
func (u *under) of(s *usage.Subject, at time.Time) (*price.Book, error) {
	switch {
	case u.books == nil:
		return nil, nil
	case u.replaces != "" && s.Book != u.replaces:
		own, known := u.over[s.BookVersion]
		if !known {
			if own = u.archive.Version(s.BookVersion); own != nil && own.Base == u.replaces {
				own = own.Always().Over(u.books)
			} else {
				own = nil
			}
			u.over[s.BookVersion] = own
		}
		return own, nil
	}
	for _, b := range u.books {
		if b.InForce(at) {
			if b.Version == s.BookVersion && b.Base == "" {
				return nil, nil // the very one
			}
			return b, nil
		}
	}
	return nil, price.ErrNotPriced{At: at}
}

// original returns the version that a request was rated under, over that of its base, whenever they were in force.
func (u *under) original(p *ledger.Posted, name price.RowName) *price.Book {
	b := u.archive.Version(p.Record.Subject.BookVersion)
	if b == nil {
		return nil
	}
	b = b.Always()
	if name.Base == "" {
		return b
	}
	base := u.archive.Version(name.Base)
	if base == nil {
		return nil
	}
	return b.Over([]*price.Book{base.Always()})
}
