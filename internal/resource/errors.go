package resource

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a file. Lines and columns count from 1; a column is a character.
type Pos struct {
	File         string
	Line, Column int
}

// String returns "file:line:column".
func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Errorf makes an error that stands at p.
func (p Pos) Errorf(format string, args ...any) *Error {
	return &Error{Pos: p, Msg: fmt.Sprintf(format, args...)}
}

// Error is one fault of a resource file, in words for the person who wrote the file.
type Error struct {
	Pos Pos
	Msg string
}

// Error returns "file:line:column: message".
func (e *Error) Error() string { return e.Pos.String() + ": " + e.Msg }

// Errors is every fault that was found.
type Errors []*Error

// maxShown bounds the text of an Errors: nobody reads further, and a large broken file must not make a larger message.
const maxShown = 50

// Error returns one line for each fault, of the first 50.
func (l Errors) Error() string {
	var b strings.Builder
	for i, e := range l {
		if i == maxShown {
			fmt.Fprintf(&b, "\n… and %d more", len(l)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Error())
	}
	return b.String()
}

// Add collects a fault: an *Error, an Errors, or nil, which adds nothing. Any other error is a bug of the caller, since
// it has no position, and panics.
func (l *Errors) Add(err error) {
	switch err := err.(type) {
	case nil:
	case Errors:
		*l = append(*l, err...)
	case *Error:
		*l = append(*l, err)
	default:
		panic("resource: an error without a position: " + err.Error())
	}
}

// Err returns l sorted by file, line and column, or nil where there is no fault.
func (l Errors) Err() error {
	if len(l) == 0 {
		return nil
	}
	slices.SortStableFunc(l, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	return l
}
