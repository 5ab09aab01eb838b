package resource

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Decimal is a number of the file, kept as its text: "0.10", "-5", "8.03e9". The zero Decimal is an absent number.
type Decimal struct {
	Text string
	Pos  Pos
}

// Int64 returns the number where it is whole and fits, however it is written: "8.03e9" is 8030000000.
func (d Decimal) Int64() (int64, bool) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(d.Text), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimRight(whole+fraction, "0")
	if digits == "" || digits == "-" {
		return 0, d.Text != ""
	}
	power := 0
	if exponent != "" {
		var err error
		if power, err = strconv.Atoi(exponent); err != nil || power > 99 || power < -99 {
			return 0, false
		}
	}
	zeros := power + len(whole) - len(digits)
	if zeros < 0 || zeros > 19 {
		return 0, false
	}
	n, err := strconv.ParseInt(digits+strings.Repeat("0", zeros), 10, 64)
	if err != nil {
		return 0, false
	}
	return n, true
}

// Word is a single value of the file, kept as its text whatever it looks like: 15, 50%, monday, 02-29. The zero Word is an
// absent one.
type Word struct {
	Text string
	Pos  Pos
}

// Secret refers to a secret: "file:PATH", relative to the resource file, or "env:NAME". The secret itself never stands
// in a resource file. The zero Secret is an absent one.
type Secret struct {
	Ref string
	Pos Pos
}

var (
	nodeType     = reflect.TypeFor[Node]()
	wordType     = reflect.TypeFor[Word]()
	decimalType  = reflect.TypeFor[Decimal]()
	secretType   = reflect.TypeFor[Secret]()
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()

	decimalForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?$`)
	integerForm = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	secretForm  = regexp.MustCompile(`^(file:[^\x00]+|env:[A-Za-z_][A-Za-z0-9_]*)$`)
)

// maxNumber bounds the text of a number: no price or count needs more.
const maxNumber = 60

// scalar reads n into v where v has one of the types that stand for a single value, and reports whether it has.
func (d *decoder) scalar(n *yaml.Node, name string, v reflect.Value) bool {
	switch v.Type() {
	case nodeType:
		v.Set(reflect.ValueOf(Node{d.file, name, n}))
		return true
	case wordType:
		if text, ok := d.text(n, name, "a single value"); ok {
			v.Set(reflect.ValueOf(Word{text, posOf(d.file, n)}))
		}
		return true
	case decimalType:
		if text, ok := d.text(n, name, "a decimal number such as 0.10"); ok {
			if len(text) > maxNumber || !decimalForm.MatchString(text) {
				d.fail(n, "%q must be a decimal number such as 0.10, not %s", name, quote(text))
			}
			v.Set(reflect.ValueOf(Decimal{text, posOf(d.file, n)}))
		}
		return true
	case secretType:
		if text, ok := d.text(n, name, `"file:PATH" or "env:NAME"`); ok {
			if !secretForm.MatchString(text) {
				d.fail(n, `%q must be "file:PATH" or "env:NAME"; a secret itself does not belong in a resource file`, name)
				return true // without the value, which must not go further
			}
			v.Set(reflect.ValueOf(Secret{text, posOf(d.file, n)}))
		}
		return true
	case timeType:
		d.time(n, name, v)
		return true
	case durationType:
		d.duration(n, name, v)
		return true
	}
	switch v.Kind() {
	case reflect.String:
		if d.plain(n, name, "text", "!!str", "!!timestamp") {
			v.SetString(n.Value)
		}
	case reflect.Bool:
		if d.plain(n, name, "true or false", "!!bool") {
			v.SetBool(strings.EqualFold(n.Value, "true"))
		}
	case reflect.Int64:
		d.integer(n, name, v)
	default:
		return false
	}
	return true
}

func (d *decoder) integer(n *yaml.Node, name string, v reflect.Value) {
	const want = "a whole number in plain digits"
	if !d.plain(n, name, want, "!!int", "!!float") {
		return
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || !integerForm.MatchString(n.Value) {
		d.fail(n, "%q must be %s, not %s", name, want, quote(n.Value))
		return
	}
	v.SetInt(i)
}

func (d *decoder) time(n *yaml.Node, name string, v reflect.Value) {
	const want = "a time with its zone such as 2026-01-01T00:00:00+01:00"
	text, ok := d.text(n, name, want)
	if !ok {
		return
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		d.fail(n, "%q must be %s, not %s", name, want, quote(text))
		return
	}
	v.Set(reflect.ValueOf(at.UTC()))
}

func (d *decoder) duration(n *yaml.Node, name string, v reflect.Value) {
	const want = "a duration such as 30s, 15m or 1h30m"
	text, ok := d.text(n, name, want)
	if !ok {
		return
	}
	span, err := time.ParseDuration(text)
	if err != nil || strings.Contains(text, ".") {
		d.fail(n, "%q must be %s, not %s", name, want, quote(text))
		return
	}
	v.SetInt(int64(span))
}

// text returns a scalar's text, quoted or not.
func (d *decoder) text(n *yaml.Node, name, want string) (string, bool) {
	if isNull(n) {
		d.fail(n, "%q has no value", name)
		return "", false
	}
	return n.Value, d.is(n, yaml.ScalarNode, name, want)
}

// plain reports whether n is a scalar of one of the kinds that its place takes, and says what is wrong if not.
func (d *decoder) plain(n *yaml.Node, name, want string, tags ...string) bool {
	for _, tag := range tags {
		if n.Kind == yaml.ScalarNode && n.ShortTag() == tag {
			return true
		}
	}
	hint := ""
	if want == "text" && n.Kind == yaml.ScalarNode && !isNull(n) {
		hint = "; put it in quotes"
	}
	d.fail(n, "%q must be %s, not %s%s", name, want, kindOf(n), hint)
	return false
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// kindOf says in words what stands in the file.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	case "!!timestamp":
		return "a date"
	}
	return "text"
}
