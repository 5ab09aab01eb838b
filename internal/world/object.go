package world

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/catalog"
	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/resource"
)

// Kinds of objects, in the order in which they build on each other. Stored: add, never rename.
const (
	kindEngine  = "engine"
	kindModel   = "model"
	kindBook    = "price_book"
	kindAccount = "account"
	kindKey     = "key"
	// kindVersion is one version of a price book, named by its hash. Versions stay for good, since records name them.
	kindVersion = "price_version"
	// kindQuarantine is a model that is not served until an operator releases it.
	kindQuarantine = "quarantine"
)

var kinds = []string{kindEngine, kindModel, kindBook, kindAccount, kindKey, kindVersion, kindQuarantine}

// item is one object, read.
type item struct {
	ledger.Object     // Body nil: deleted
	value         any // what the body says, by kind: *engineBody, *catalog.Model, *bookBody, *accountBody, *keyBody, *price.Book
}

// items are the objects of a world, deleted ones included.
type items map[ledger.ObjectRef]*item

func (it *item) ref() ledger.ObjectRef { return ledger.ObjectRef{Kind: it.Kind, Name: it.Name} }

// live reports whether there is such an object.
func (all items) live(ref ledger.ObjectRef) bool {
	it := all[ref]
	return it != nil && it.Body != nil
}

// names lists the live objects of one kind, in order.
func (all items) names(kind string) []string {
	var names []string
	for _, it := range all.sorted(kind) {
		names = append(names, it.Name)
	}
	return names
}

// The bodies below are stored as JSON in the order of their fields. They hold what was written, not what follows from it.

type engineBody struct {
	catalog.Engine
	SealedKey string `json:"api_key_sealed,omitempty"`
}

// bookBody names the versions of a price book that are in force one after the other.
type bookBody struct {
	Versions []string `json:"versions"`
}

type accountBody struct {
	Currency          string            `json:"currency,omitempty"`
	Zone              string            `json:"timezone,omitempty"`
	Book              string            `json:"price_book,omitempty"`
	BillingAccount    string            `json:"billing_account,omitempty"`
	Seller            string            `json:"seller,omitempty"`
	Contract          string            `json:"contract,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	RequestsPerMinute int64             `json:"requests_per_minute,omitempty"`
	RequestBurst      int64             `json:"request_burst,omitempty"`
	TokensPerMinute   int64             `json:"tokens_per_minute,omitempty"`
	TokenBurst        int64             `json:"token_burst,omitempty"`
	Limits            []limitBody       `json:"limits,omitempty"`
	Models            []string          `json:"models,omitempty"`
	Regions           []string          `json:"regions,omitempty"`
	Isolation         bool              `json:"isolation,omitempty"`
	Suspended         bool              `json:"suspended,omitempty"`
	ShowAmounts       bool              `json:"show_amounts,omitempty"`
	OnShort           string            `json:"on_short,omitempty"`
}

type limitBody struct {
	Measure   string   `json:"measure"`
	Window    string   `json:"window"`
	Amount    string   `json:"amount"` // exact decimal
	Anchor    string   `json:"anchor,omitempty"`
	Model     string   `json:"model,omitempty"`
	SizeClass string   `json:"size_class,omitempty"`
	Tier      string   `json:"service_tier,omitempty"`
	Action    string   `json:"action,omitempty"` // "" is block
	DegradeTo string   `json:"degrade_to,omitempty"`
	Alerts    []string `json:"alerts,omitempty"`
}

// identity is what tells limits of one account or key apart.
func (b *limitBody) identity() [6]string {
	return [...]string{b.Measure, b.Window, b.Anchor, b.Model, b.SizeClass, b.Tier}
}

// say names a limit in messages.
func (b *limitBody) say() string {
	text := "limit " + b.Measure + " per " + b.Window
	if b.Anchor != "" {
		text += " from " + b.Anchor
	}
	for _, narrow := range []string{b.Model, b.SizeClass, b.Tier} {
		if narrow != "" {
			text += " of " + narrow
		}
	}
	return text
}

type keyBody struct {
	Account account.Path `json:"account"`
	Public  string       `json:"public"`
	Hash    digest       `json:"hash"`
	Created time.Time    `json:"created"`
	Revoked bool         `json:"revoked,omitempty"`
	Limits  []limitBody  `json:"limits,omitempty"`
}

// digest is a keyed hash, in hexadecimal where it is stored.
type digest [32]byte

// MarshalText implements encoding.TextMarshaler.
func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *digest) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(d)) {
		return errors.New("not a hash of 32 bytes")
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// newItem makes an item that has no number and no owner yet.
func newItem(ref ledger.ObjectRef, value any) *item {
	it := &item{Object: ledger.Object{Kind: ref.Kind, Name: ref.Name}, value: value}
	it.write()
	return it
}

// write makes the body of an item from its value.
func (it *item) write() {
	if book, ok := it.value.(*price.Book); ok {
		it.Body = book.Canonical()
		return
	}
	body, err := json.Marshal(it.value)
	if err != nil {
		panic("world: cannot write an object: " + err.Error()) // text, numbers and times of this century
	}
	it.Body = body
}

// readObject reads a stored object. A member that this version does not know is an error: half of an object is none.
func readObject(o ledger.Object) (*item, error) {
	it := &item{Object: o}
	switch o.Kind {
	case kindEngine:
		it.value = &engineBody{Engine: catalog.Engine{Name: o.Name}}
	case kindModel:
		it.value = &catalog.Model{Name: o.Name}
	case kindBook:
		it.value = &bookBody{}
	case kindAccount:
		it.value = &accountBody{}
	case kindKey:
		it.value = &keyBody{}
	case kindQuarantine:
		it.value = &Quarantine{}
	case kindVersion:
		book, err := price.ParseCanonical(o.Body)
		if err != nil {
			return nil, err
		}
		it.value = book
		return it, nil
	default:
		return nil, fmt.Errorf("%s %q is of a kind that this version does not know", o.Kind, o.Name)
	}
	if o.Body == nil {
		return it, nil
	}
	dec := json.NewDecoder(bytes.NewReader(o.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(it.value); err != nil {
		return nil, fmt.Errorf("cannot read stored %s %q: %w", o.Kind, o.Name, err)
	}
	return it, nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$`)

// checkName tests the name of an engine, a model or a key.
func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("name %q is not of letters, digits and . _ : / @ + -, beginning with a letter or digit, at most 128", name)
	}
	return nil
}

// publicPrefix begins the public id of every key.
const publicPrefix = "key_"

// checkKeyName tests the name of a key, which must not look like the public id of another.
func checkKeyName(name string) error {
	if strings.HasPrefix(name, publicPrefix) {
		return fmt.Errorf("name %q begins with %s, as public ids do", name, publicPrefix)
	}
	return checkName(name)
}

// suggest ends a message about an unknown name.
func suggest(name string, known []string) string {
	const most = 12
	switch near := resource.Nearest(name, known); {
	case near != "":
		return fmt.Sprintf("; did you mean %q?", near)
	case len(known) == 0:
		return "; there is none"
	case len(known) > most:
		return fmt.Sprintf("; there are %d", len(known))
	}
	return "; known are " + strings.Join(known, ", ")
}
