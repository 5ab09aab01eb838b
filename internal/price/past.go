package price

import (
	"strconv"
	"strings"
	"time"
)

// Always returns the book as if it were in force at any time: what it would have made of another time's requests.
func (b *Book) Always() *Book {
	always := *b
	always.From, always.To = time.Time{}, time.Time{}
	return &always
}

// Over returns the book over the versions given of its base, in the order of time, which it is not checked against: they
// were when they were published together.
func (b *Book) Over(base []*Book) *Book {
	over := *b
	over.base = base
	return &over
}

// RowName is what the ID of a row says.
type RowName struct {
	Version string // the first 16 digits
	Base    string // those of its base, "" for none
	Step    int64  // of the price tape, 0 for none
	Tier    string
}

// ParseRowID reads the ID of a row that Book.Row made. ok is false for another text.
func ParseRowID(id string) (name RowName, ok bool) {
	book, rest, _ := strings.Cut(id, "/")
	if book, step, stepped := strings.Cut(book, "#"); stepped {
		n, err := strconv.ParseInt(step, 10, 64)
		if err != nil {
			return name, false
		}
		id, name.Step = book, n
	} else {
		id = book
	}
	over, base, _ := strings.Cut(id, "+")
	_, name.Version, ok = strings.Cut(over, "@")
	_, name.Base, _ = strings.Cut(base, "@")
	name.Tier = Standard
	for _, word := range strings.Split(rest, " ")[1:] {
		if tier, found := strings.CutPrefix(word, "tier="); found {
			name.Tier = tier
		}
	}
	return name, ok
}
