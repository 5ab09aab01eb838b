// Package account names the nodes of the tenant tree: organisation, departments to any depth, project.
// It does not hold the tree itself (package world does) and knows nothing of keys, limits or money.
//
// # Invariants
//
//   - An ID, once given to a node, is never given to another: it is what records, holds and limits refer to.
//   - A Path is a label: it is recorded as it was at admission and may change when a ministry reorganises.
//   - Every Path that Parse returns has an organisation as its first segment and no empty segment.
//
// Start reading at Path.
package account

import (
	"fmt"
	"strings"
)

// ID is the immutable number of a node. 0 is no node.
type ID int64

// Path is the label of a node: "acme/research/chat". The first segment is the organisation.
type Path string

// maxPath bounds a path in bytes, so that a record has a bounded size.
const maxPath = 255

// Parse checks the text of a path: 1 to 16 segments of [a-z0-9._-], each beginning with a letter or digit, 255 bytes at most.
func Parse(s string) (Path, error) {
	if len(s) > maxPath {
		return "", fmt.Errorf("account path is %d bytes long; at most %d", len(s), maxPath)
	}
	segments := strings.Split(s, "/")
	if len(segments) > 16 {
		return "", fmt.Errorf("account path %q is %d levels deep; at most 16", s, len(segments))
	}
	for _, seg := range segments {
		if !validSegment(seg) {
			return "", fmt.Errorf("account path %q: segment %q is not of a-z, 0-9, '.', '_', '-' beginning with a letter or digit", s, seg)
		}
	}
	return Path(s), nil
}

func validSegment(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return s != ""
}

// Parent returns the path one level up, "" for an organisation.
func (p Path) Parent() Path {
	i := strings.LastIndexByte(string(p), '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}

// Organisation returns the first segment.
func (p Path) Organisation() Path {
	org, _, _ := strings.Cut(string(p), "/")
	return Path(org)
}

// Within reports whether p is top or lies below it.
func (p Path) Within(top Path) bool {
	return p == top || strings.HasPrefix(string(p), string(top)+"/")
}

// Level says what kind of node p is, in a word for messages: "organisation" or "department" (a project is said by
// the caller, who knows that keys hang on it).
func (p Path) Level() string {
	if p.Parent() == "" {
		return "organisation"
	}
	return "department"
}
