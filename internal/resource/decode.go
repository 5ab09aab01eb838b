package resource

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Decode reads a mapping into the struct that into points to. It reports every fault of the item in one Errors.
//
// Each field has a tag `yaml:"key"`, or `yaml:"key,required"` where the file must have the key; a field Pos of type Pos
// has no tag and is set to where its struct stands. The types are
//
//   - string and named strings: text; a number or true must be quoted to be text
//   - bool: true or false
//   - int64: a whole number in plain digits
//   - Decimal: a number or a quoted number, kept as text
//   - Word: a single value of any look, kept as text
//   - Secret: "file:PATH" or "env:NAME"
//   - time.Time: RFC 3339 with its zone, returned in UTC
//   - time.Duration: "15m", "1h30m"; no fractions
//   - structs, pointers, slices, maps with string keys, of all these
//   - Node: kept back, of any form, for a later Decode
//
// A key without a value is an error, but for a slice, a map, a pointer or a Node, where it is the same as no key.
// A struct that Decode cannot fill is a bug of the caller and panics.
func (n Node) Decode(into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("resource: cannot decode into a %T", into))
	}
	var d decoder
	if n.node == nil {
		panic("resource: cannot decode an absent value")
	}
	d.file = n.file
	d.value(n.node, n.noun, v.Elem())
	return d.errs.Err()
}

// Texts returns the texts of a value that is one text or a list of them; none where the file has no value. Its error is a
// resource.Errors.
func (n Node) Texts() ([]string, error) {
	if n.node == nil {
		return nil, nil
	}
	d, texts := decoder{file: n.file}, []string{}
	nodes := []*yaml.Node{n.node}
	if n.node.Kind == yaml.SequenceNode {
		nodes = n.node.Content
	}
	for _, item := range nodes {
		if d.plain(item, n.noun, "text", "!!str", "!!timestamp") {
			texts = append(texts, item.Value)
		}
	}
	return texts, d.errs.Err()
}

type decoder struct {
	file string
	errs Errors
}

// value reads n, which messages call name, into v.
func (d *decoder) value(n *yaml.Node, name string, v reflect.Value) {
	if d.scalar(n, name, v) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, name, v.Elem())
	case reflect.Struct:
		d.mapping(n, name, v)
	case reflect.Slice:
		if !d.is(n, yaml.SequenceNode, name, "a list") {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.value(item, singular(name), v.Index(i))
		}
	case reflect.Map:
		if !d.is(n, yaml.MappingNode, name, "a mapping") {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for i := 0; i < len(n.Content); i += 2 {
			key, elem := n.Content[i].Value, reflect.New(v.Type().Elem()).Elem()
			d.value(n.Content[i+1], key, elem)
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
		}
	default:
		panic(fmt.Sprintf("resource: cannot decode into a %s", v.Type()))
	}
}

// field is one key that a struct knows.
type field struct {
	key      string
	required bool
	index    int
}

var posType = reflect.TypeFor[Pos]()

// fieldsOf lists the keys of a struct in the order of its fields, and sets its Pos.
func (d *decoder) fieldsOf(n *yaml.Node, v reflect.Value) (fields []field, keys []string) {
	t := v.Type()
	for i := range t.NumField() {
		key, option, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		switch {
		case key != "":
			fields = append(fields, field{key, option == "required", i})
			keys = append(keys, key)
		case t.Field(i).Name == "Pos" && t.Field(i).Type == posType:
			v.Field(i).Set(reflect.ValueOf(posOf(d.file, n)))
		case t.Field(i).IsExported():
			panic(fmt.Sprintf("resource: field %s of %s has no yaml tag", t.Field(i).Name, t))
		}
	}
	return fields, keys
}

func (d *decoder) mapping(n *yaml.Node, name string, v reflect.Value) {
	if !d.is(n, yaml.MappingNode, name, "a mapping") {
		return
	}
	fields, keys := d.fieldsOf(n, v)
	values := make(map[string]*yaml.Node, len(fields))
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		values[key.Value] = n.Content[i+1]
		if !slices.Contains(keys, key.Value) {
			d.fail(key, "unknown key %s in %s%s", quote(key.Value), name, suggest(key.Value, keys))
		}
	}
	for _, f := range fields {
		value := values[f.key]
		switch {
		case value == nil && f.required:
			d.fail(n, "%s lacks the key %q", name, f.key)
		case value == nil:
		case isNull(value) && (f.required || !nullable(v.Field(f.index))):
			d.fail(value, "%q has no value", f.key)
		case isNull(value):
		default:
			d.value(value, f.key, v.Field(f.index))
		}
	}
}

func nullable(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer:
		return true
	}
	return v.Type() == nodeType
}

// is reports whether n has the kind that its place needs, and says what is wrong if not. It never shows the value.
func (d *decoder) is(n *yaml.Node, kind yaml.Kind, name, want string) bool {
	if n.Kind == kind {
		return true
	}
	d.fail(n, "%q must be %s, not %s", name, want, kindOf(n))
	return false
}

func (d *decoder) fail(n *yaml.Node, format string, args ...any) {
	d.errs.Add(posOf(d.file, n).Errorf(format, args...))
}
