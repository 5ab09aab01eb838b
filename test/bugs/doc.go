// Package bugs plants known bugs of charging, one at a time, and demands that the tests find each: a suite that passes with
// a bug in the product says nothing when it passes without. It has nothing but tests.
//
// Each row of planted is a change of the source, from one text to another. `go test ./test/bugs` looks only whether the old
// texts are still there: who changes such a line moves the bug along. `make bugs` plants them, in an overlay of the source,
// and writes docs/proof/bugs.txt.
package bugs
