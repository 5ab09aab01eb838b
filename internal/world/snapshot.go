package world

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"talea/internal/account"
	"talea/internal/catalog"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/usage"
)

// Account is a node of the tree of tenants, with everything that it inherits. Accounts are shared: nobody changes one.
type Account struct {
	ID             account.ID
	Path           account.Path
	Parent         *Account      // nil for an organisation
	Chain          []*Account    // the organisation first, the account itself last
	IDs            []account.ID  // of Chain
	Project        bool          // keys hang on it
	Currency       string        // ISO 4217, the organisation's
	Zone           string        // IANA zone of its calendar, the organisation's
	Books          []*price.Book // versions of the nearest price book, one after the other in time; none where there is no book
	BillingAccount string        // the nearest; the organisation's path where nobody says
	Seller         string        // the nearest
	Contract       string        // the nearest
	Labels         []usage.Label // own and inherited, by name; the nearest counts
	Requests       quota.Rate    // of the account itself; no rate where PerMinute is 0
	TokenRate      quota.Rate    // of the account itself; no rate where PerMinute is 0
	Rated          bool          // some account of Chain has a rate
	Suspended      bool          // itself or an account above it
	Clamp          bool          // the nearest on_short: a short limit makes a request's maximum smaller, rather than refuse it
	ShowAmounts    bool          // amounts of its limits are shown to the accounts below
	Limits         []quota.Limit // of the account itself
	Models         []string      // allow-list of the account itself; empty allows every model that is priced
	Regions        []string      // where its data may go: what every list of Chain has; empty is anywhere
	Salt           string        // separates its prefix cache from others': of the nearest account with isolation, else the organisation
}

// may reports whether every allow-list of the chain has the model.
func (a *Account) may(model string) bool {
	for _, node := range a.Chain {
		if len(node.Models) > 0 && !slices.Contains(node.Models, model) {
			return false
		}
	}
	return true
}

// reaches reports whether the account's data may go to a region.
func (a *Account) reaches(region string) bool {
	return len(a.Regions) == 0 || slices.Contains(a.Regions, region)
}

// Key is a credential of a project. Keys are shared: nobody changes one.
type Key struct {
	Public  string // what records call it: "key_" and ten digits, or its name where it was brought along
	Name    string
	Account *Account
	Hash    [32]byte // keyed hash of the secret
	Revoked bool
	Created time.Time     // UTC, whole seconds
	Limits  []quota.Limit // of the key itself

	snapshot *Snapshot
	offers   atomic.Pointer[map[string]*Offer] // by model; grows by copying
}

// Offer is one model as one key may use it, under one version of its price book.
type Offer struct {
	Subject *usage.Subject
	Model   *catalog.Model
	Engines []*catalog.Engine // where the account's data may go and the price is right, in order of preference; never empty
	Book    *price.Book
	Query   price.Query // what of the book it is, at the standard tier
	Account *Account
	// Quarantined: it is not to be served until an operator has looked at it.
	Quarantined bool

	next *Offer // under the version that follows
}

// At returns the offer under the version of the price book that is in force at an instant, or the nearest to it.
func (o *Offer) At(t time.Time) *Offer {
	for o.next != nil && !t.Before(o.next.Book.From) {
		o = o.next
	}
	return o
}

var (
	// errModelNotFound says that a model does not exist, or not for this account: not allowed, or not in its price book.
	errModelNotFound = errors.New("model not found")
	// ErrResidency says that no engine of the model stands where the account's data may go.
	ErrResidency = errors.New("no engine in an allowed region")
)

// Offer returns what the key may use under the name of a model, under the first version of its price book; At finds the
// one in force. It is built once and shared; a call after the first neither locks nor allocates. The error is
// ErrResidency, or else the model does not exist for this account: unknown, not allowed and not priced are the same.
func (k *Key) Offer(model string) (*Offer, error) {
	if known := k.offers.Load(); known != nil {
		if o := (*known)[model]; o != nil {
			return o, nil
		}
	}
	return k.offer(model, model, model)
}

// Degraded returns the offer of a model that is used in place of the one that was asked for: on records both stand. No
// model that is asked for has a name with the NUL between them.
func (k *Key) Degraded(asked, to string) (*Offer, error) { return k.offer(asked+"\x00"+to, asked, to) }

// offer builds an offer of a model under the name by which it was asked for, and keeps it as id. What leads to nothing is not
// kept: callers can make up as many names as they like.
func (k *Key) offer(id, asked, name string) (*Offer, error) {
	s, a := k.snapshot, k.Account
	m := s.models[name]
	if m == nil || !a.may(name) || !slices.ContainsFunc(a.Books, func(b *price.Book) bool { return s.priced(b, m, string(a.Path.Organisation())) }) {
		return nil, errModelNotFound
	}
	var engines []*catalog.Engine
	for _, e := range m.Engines {
		if e := s.engines[e]; a.reaches(e.Region) {
			engines = append(engines, e)
		}
	}
	if len(engines) == 0 {
		return nil, ErrResidency
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]*Offer{}
	if now := k.offers.Load(); now != nil {
		if o := (*now)[id]; o != nil {
			return o, nil // somebody was faster, or it is not the first time
		}
		known = maps.Clone(*now)
	}
	var first *Offer
	for _, book := range slices.Backward(a.Books) {
		first = &Offer{Subject: k.subject(asked, m, book), Model: m, Engines: engines, Book: book, Account: a, Quarantined: s.quarantined[m.Name] != nil, next: first}
		first.Query = queryOf(m, engines[0])
		first.Query.Organisation = string(a.Path.Organisation())
		if book.ByPlace() { // the price is fixed before an engine is chosen: only engines at the place of the first have it
			first.Engines = slices.DeleteFunc(slices.Clone(engines), func(e *catalog.Engine) bool {
				return e.Region != engines[0].Region || e.GPUKind != engines[0].GPUKind
			})
		}
	}
	known[id] = first
	k.offers.Store(&known)
	return first, nil
}

func (k *Key) subject(asked string, m *catalog.Model, book *price.Book) *usage.Subject {
	a := k.Account
	return &usage.Subject{
		Organisation: a.Chain[0].ID, Account: a.ID, AccountPath: a.Path, BillingAccount: a.BillingAccount, Key: k.Public, Labels: a.Labels,
		Seller: a.Seller, Contract: a.Contract, Currency: a.Currency, Book: book.Name, BookVersion: book.Version,
		ModelAsked: asked, Model: m.Name, ModelRevision: m.Revision, Quantisation: m.Quantisation, Tokenizer: m.Tokenizer, SizeClass: m.SizeClass, Work: m.Work(),
	}
}

// queryOf asks for the price of a model on an engine.
func queryOf(m *catalog.Model, e *catalog.Engine) price.Query {
	return price.Query{Model: m.Name, Family: m.Family, SizeClass: m.SizeClass, GPUKind: e.GPUKind, Region: e.Region}
}

// priced reports whether a version of a price book has any price for a model on some engine of it, for an organisation.
func (s *Snapshot) priced(b *price.Book, m *catalog.Model, organisation string) bool {
	return slices.ContainsFunc(m.Engines, func(name string) bool {
		q := queryOf(m, s.engines[name])
		q.Organisation = organisation
		_, err := b.Row(q, b.From)
		return err == nil
	})
}

// Visitor returns a key of an account that nobody has: what an offering would be for it.
func (s *Snapshot) Visitor(a *Account) *Key { return &Key{Account: a, snapshot: s} }

// Offers returns everything that the key may use, by the model's name.
func (k *Key) Offers() []*Offer {
	var list []*Offer
	for _, name := range k.snapshot.modelNames {
		if o, err := k.Offer(name); err == nil {
			list = append(list, o)
		}
	}
	return list
}

// Snapshot is the world at one time. It never changes, and may be read concurrently.
type Snapshot struct {
	Number int64 // grows by one with each change, from 1 at the start of the process

	accounts    []*Account // by path
	byPath      map[account.Path]*Account
	byID        map[account.ID]*Account
	keys        []*Key // by name
	byHash      map[[32]byte]*Key
	byPublic    map[string]*Key
	engineList  []*catalog.Engine // by name
	engines     map[string]*catalog.Engine
	models      map[string]*catalog.Model
	modelNames  []string      // in order
	books       []*price.Book // by name, then time
	bookVersion map[string]*price.Book
	quarantined map[string]*Quarantine

	mu sync.Mutex // guards the growing of keys' offers
}

// ByHash returns the key with this keyed hash, revoked ones included; nil where there is none.
func (s *Snapshot) ByHash(h [32]byte) *Key { return s.byHash[h] }

// Account returns the account at a path; nil where there is none.
func (s *Snapshot) Account(path account.Path) *Account { return s.byPath[path] }

// AccountByID returns the account with a number; nil where there is none.
func (s *Snapshot) AccountByID(id account.ID) *Account { return s.byID[id] }

// Accounts returns all accounts by path, so that every account comes after those above it.
func (s *Snapshot) Accounts() []*Account { return s.accounts }

// Keys returns all keys by name, revoked ones included.
func (s *Snapshot) Keys() []*Key { return s.keys }

// Engine returns the engine of a name; nil where there is none.
func (s *Snapshot) Engine(name string) *catalog.Engine { return s.engines[name] }

// Engines returns all engines by name.
func (s *Snapshot) Engines() []*catalog.Engine { return s.engineList }

// Books returns all versions of all price books, by name and time.
func (s *Snapshot) Books() []*price.Book { return s.books }

// Models returns all models by name.
func (s *Snapshot) Models() []*catalog.Model {
	list := make([]*catalog.Model, len(s.modelNames))
	for i, name := range s.modelNames {
		list[i] = s.models[name]
	}
	return list
}

// versions returns the books of a body.
func (s *Snapshot) versions(b *bookBody) []*price.Book {
	list := make([]*price.Book, len(b.Versions))
	for i, v := range b.Versions {
		list[i] = s.bookVersion[v]
	}
	return list
}
