// Package resource reads a file of YAML resources into lists of items, strictly, and knows where each value stands.
// It does not know what an engine, a price or an account is (catalog, price and world do), reads no file and resolves
// no secret (cli and app do): bytes in, values and errors with positions out.
//
// # Invariants
//
//   - Every error has a file, a line and a column.
//   - Nothing is ignored: an unknown, duplicate or valueless key is an error, and so are anchors, aliases, merge keys, tags
//     and a second document.
//   - A number is kept as its text: no value passes through a float.
//   - The value of a secret written where a reference belongs is in no error.
//
// To add a type that Decode understands: a case in decoder.scalar, a line in Decode's comment, cases in the test.
//
// Start reading at Parse, then Node.Decode.
package resource

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxText bounds a file: a syntax tree is many times as large as its text.
const maxText = 8 << 20

// maxDepth bounds the nesting of values. The deepest form of a price book needs 7.
const maxDepth = 32

// Document is one parsed file: sections in the order of the file, each a list of items.
type Document struct {
	sections []section
}

type section struct {
	name  string
	pos   Pos
	items []Node
}

// Node is one value of a document: an item of a section, or a part of one that a field of type Node has kept back.
// The zero Node is an absent value.
type Node struct {
	file string
	noun string // what to call it in a message: "price" for an item of "prices"
	node *yaml.Node
}

// Parse reads one YAML document whose top level maps section names to lists. The file's name is used in positions
// only. An error is an Errors with every fault that was found, or the first where the YAML itself is broken.
func Parse(file string, text []byte) (*Document, error) {
	if err := checkText(file, text); err != nil {
		return nil, Errors{err}
	}
	root, err := parseYAML(file, text)
	if err != nil {
		return nil, Errors{err}
	}
	var errs Errors
	c := checker{file: file, errs: &errs}
	c.value(root, 1)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	doc := &Document{}
	for i := 0; i < len(root.Content); i += 2 {
		key, list := root.Content[i], root.Content[i+1]
		s := section{name: key.Value, pos: posOf(file, key)}
		if list.Kind != yaml.SequenceNode && !isNull(list) {
			errs.Add(posOf(file, list).Errorf("section %s must be a list, not %s", quote(key.Value), kindOf(list)))
		}
		for _, item := range list.Content {
			s.items = append(s.items, Node{file: file, noun: singular(key.Value), node: item})
		}
		doc.sections = append(doc.sections, s)
	}
	return doc, errs.Err()
}

// Section returns the items of a section, in the order of the file; none where the file has no such section.
func (d *Document) Section(name string) []Node {
	for _, s := range d.sections {
		if s.name == name {
			return s.items
		}
	}
	return nil
}

// Only returns an Errors that names every section not among the known ones, with the nearest of them, or nil.
func (d *Document) Only(known ...string) error {
	var errs Errors
	for _, s := range d.sections {
		if !slices.Contains(known, s.name) {
			errs.Add(s.pos.Errorf("unknown section %s%s", quote(s.name), suggest(s.name, known)))
		}
	}
	return errs.Err()
}

// Pos returns where the value stands; the zero Pos for an absent one.
func (n Node) Pos() Pos {
	if n.node == nil {
		return Pos{}
	}
	return posOf(n.file, n.node)
}

// Mapping reports whether it is a mapping.
func (n Node) Mapping() bool { return n.node != nil && n.node.Kind == yaml.MappingNode }

// Word reads a single value of any look.
func (n Node) Word() (Word, error) {
	var w Word
	d := decoder{file: n.file}
	d.value(n.node, n.noun, reflect.ValueOf(&w).Elem())
	return w, d.errs.Err()
}

// Present reports whether the file has the value.
func (n Node) Present() bool { return n.node != nil }

// checkText refuses what the YAML reader would refuse without saying where, or read in an encoding of its own choice.
func checkText(file string, text []byte) *Error {
	if len(text) > maxText {
		return Pos{file, 1, 1}.Errorf("the file is %d bytes long; at most %d are read", len(text), maxText)
	}
	line, start := 1, 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return Pos{file, line, i - start + 1}.Errorf("the file is not UTF-8 text")
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
			return Pos{file, line, i - start + 1}.Errorf("control character %U is not allowed", r)
		case r == '\n':
			line, start = line+1, i+1
		}
		i += size
	}
	return nil
}

// parseYAML returns the top-level mapping of the only document.
func parseYAML(file string, text []byte) (*yaml.Node, *Error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, Pos{file, 1, 1}.Errorf("the file has no resources")
	} else if err != nil {
		return nil, yamlError(file, err)
	}
	if err := dec.Decode(&second); err == nil {
		return nil, posOf(file, &second).Errorf("a second document begins here; a file holds one")
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlError(file, err)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, posOf(file, root).Errorf("the file must be a mapping of sections such as engines and models, not %s", kindOf(root))
	}
	return root, nil
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// yamlBlock matches the messages about the form of a block: their line counts from 0.
	yamlBlock = regexp.MustCompile(`^did not find expected (key|node content|'-' indicator|',' or .*|<.*)$`)
)

// yamlError gives an error of the YAML reader a position. The reader tells the line at best, and its message about an
// alias would show what may be a secret that begins with an asterisk.
func yamlError(file string, err error) *Error {
	text := err.Error()
	at := Pos{file, 1, 1}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if line, err := strconv.Atoi(m[1]); err == nil {
			at.Line = line
		}
		text = text[len(m[0]):]
	}
	switch {
	case strings.HasPrefix(text, "unknown anchor"):
		text = noAlias
	case yamlBlock.MatchString(text):
		at.Line++
	}
	return at.Errorf("not valid YAML: %s", text)
}

const noAlias = "anchors and aliases (& and *) are not supported; quote a value that begins with one of these signs"

// checker walks the whole tree and refuses every form that Decode would have to interpret or ignore.
type checker struct {
	file string
	errs *Errors
}

func (c *checker) value(n *yaml.Node, depth int) {
	switch {
	case depth > maxDepth:
		c.fail(n, "values nest deeper than %d levels", maxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		c.fail(n, "%s", noAlias)
		return
	case n.Style&yaml.TaggedStyle != 0:
		c.fail(n, "tags (!) are not supported; quote a value that begins with one")
	}
	if n.Kind == yaml.MappingNode {
		c.keys(n)
	}
	for _, child := range n.Content {
		c.value(child, depth+1)
	}
}

func (c *checker) keys(n *yaml.Node) {
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		line, seen := first[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			c.fail(key, "a key must be a word, not %s", kindOf(key))
		case key.ShortTag() == "!!merge":
			c.fail(key, "merge keys (<<) are not supported")
		case isNull(key) || key.Value == "":
			c.fail(key, "a key is empty")
		case seen:
			c.fail(key, "duplicate key %s; the first is on line %d", quote(key.Value), line)
		default:
			first[key.Value] = key.Line
		}
	}
}

func (c *checker) fail(n *yaml.Node, format string, args ...any) {
	c.errs.Add(posOf(c.file, n).Errorf(format, args...))
}

func posOf(file string, n *yaml.Node) Pos { return Pos{file, max(n.Line, 1), max(n.Column, 1)} }

// singular names an item by its section: "engine" of "engines", "policy" of "policies".
func singular(s string) string {
	if stem, ok := strings.CutSuffix(s, "ies"); ok {
		return stem + "y"
	}
	return strings.TrimSuffix(s, "s")
}

// quote shows a word of the file in a message; a long one is cut.
func quote(s string) string {
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
