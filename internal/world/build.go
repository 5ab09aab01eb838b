package world

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"talea/internal/account"
	"talea/internal/catalog"
	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/quota"
	"talea/internal/usage"
)

// build makes the snapshot of the draft's items, and checks everything that one item says of another. It is the same for
// a world that is read back and one that is about to be.
func (d *draft) build(number int64) error {
	d.plan.order()
	d.snapshot = &Snapshot{
		Number: number, byPath: map[account.Path]*Account{}, byID: map[account.ID]*Account{}, byHash: map[[32]byte]*Key{}, byPublic: map[string]*Key{},
		engines: map[string]*catalog.Engine{}, models: map[string]*catalog.Model{}, bookVersion: map[string]*price.Book{}, quarantined: map[string]*Quarantine{},
	}
	d.buildEngines()
	d.buildModels()
	for _, it := range d.items.sorted(kindQuarantine) { // its model may be gone, and come again: then it still holds
		d.snapshot.quarantined[it.Name] = it.value.(*Quarantine)
	}
	books := d.buildBooks()
	for _, it := range d.items.sorted(kindAccount) {
		d.buildAccount(it, books)
	}
	for _, it := range d.items.sorted(kindKey) {
		d.buildKey(it)
	}
	return d.err()
}

func (d *draft) buildEngines() {
	s := d.snapshot
	for _, it := range d.items.sorted(kindEngine) {
		body := it.value.(*engineBody)
		e := body.Engine
		if body.SealedKey != "" {
			key, err := d.secrets.Open(engineKeyContext(it.Name), body.SealedKey)
			if err != nil {
				d.fault(it.ref(), "%v", err)
			}
			e.APIKey = key
		}
		s.engines[it.Name] = &e
		s.engineList = append(s.engineList, &e)
	}
}

func (d *draft) buildModels() {
	s := d.snapshot
	for _, it := range d.items.sorted(kindModel) {
		m, err := it.value.(*catalog.Model).Complete()
		if err != nil {
			d.fault(it.ref(), "%v", err)
			continue
		}
		for _, name := range m.Engines {
			e := s.engines[name]
			if e == nil {
				d.fault(it.ref(), "%s", d.unknown(kindEngine, name))
				continue
			}
			// Ollama drops the oldest tokens and goes on when a context is full, unless it is told not to.
			m.ContextShift = m.ContextShift || e.Kind == "ollama"
		}
		s.models[it.Name] = m
		s.modelNames = append(s.modelNames, it.Name)
	}
}

// buildBooks puts the books over their bases and returns the versions of each by its name.
func (d *draft) buildBooks() map[string][]*price.Book {
	s, byName := d.snapshot, map[string][]*price.Book{}
	for _, it := range d.items.sorted(kindVersion) {
		s.bookVersion[it.Name] = it.value.(*price.Book)
	}
	for _, it := range d.items.sorted(kindBook) {
		body := it.value.(*bookBody)
		for _, v := range body.Versions {
			if s.bookVersion[v] == nil {
				d.fault(it.ref(), "its version %s is not stored", v)
				return byName
			}
		}
		for _, b := range s.versions(body) {
			if what := b.Unserved(); what != "" {
				d.fault(it.ref(), `%s: only "talea rate" knows it yet, requests cannot be charged so`, what)
			}
			s.books = append(s.books, b)
		}
	}
	s.books = price.Link(s.books, func(b *price.Book, err error) { d.fault(ledger.ObjectRef{Kind: kindBook, Name: b.Name}, "%v", err) })
	for _, b := range s.books {
		byName[b.Name] = append(byName[b.Name], b)
	}
	return byName
}

func (d *draft) buildAccount(it *item, books map[string][]*price.Book) {
	s, b := d.snapshot, it.value.(*accountBody)
	a := &Account{
		ID: account.ID(it.ID), Path: account.Path(it.Name), Currency: b.Currency, Zone: b.Zone, Books: books[b.Book],
		BillingAccount: b.BillingAccount, Seller: b.Seller, Contract: b.Contract,
		Requests:  rate(b.RequestsPerMinute, b.RequestBurst, b.RequestsPerMinute/10),
		TokenRate: rate(b.TokensPerMinute, b.TokenBurst, b.TokensPerMinute),
		Suspended: b.Suspended, ShowAmounts: b.ShowAmounts, Models: b.Models, Regions: b.Regions,
	}
	a.Rated = a.Requests.PerMinute > 0 || a.TokenRate.PerMinute > 0
	if b.Book != "" && a.Books == nil {
		d.fault(it.ref(), "%s", d.unknown(kindBook, b.Book))
		a.Books = []*price.Book{} // not nil: the accounts and keys below have nothing wrong with them
	}
	if path := a.Path.Parent(); path != "" {
		if a.Parent = s.byPath[path]; a.Parent == nil {
			d.fault(it.ref(), "%s", d.unknown(kindAccount, string(path)))
		}
	}
	d.inherit(it, a, b)
	if b.Book != "" && len(a.Books) > 0 && a.Books[0].Currency != a.Currency && a.Currency != "" {
		d.fault(it.ref(), "price book %q is in %s, the account in %s", b.Book, a.Books[0].Currency, a.Currency)
	}
	for _, name := range b.Models {
		if s.models[name] == nil {
			d.fault(it.ref(), "models: %s", d.unknown(kindModel, name))
		}
	}
	a.Limits = d.buildLimits(it, a, "", b.Limits)
	d.circle(it, a.Limits, limitsOf(a))
	s.accounts = append(s.accounts, a)
	s.byPath[a.Path], s.byID[a.ID] = a, a
}

// rate makes a rate. Where no burst was said it is as many as usual, at least one.
func rate(perMinute, burst, usual int64) quota.Rate {
	if perMinute == 0 {
		return quota.Rate{}
	}
	return quota.Rate{PerMinute: perMinute, Burst: cmp.Or(burst, max(1, usual))}
}

// inherit gives an account what the accounts above it have and it does not say itself.
func (d *draft) inherit(it *item, a *Account, b *accountBody) {
	labels := map[string]string{}
	a.Clamp = b.OnShort == onShortClamp
	if up := a.Parent; up != nil {
		a.Clamp = a.Clamp || b.OnShort == "" && up.Clamp
		a.Chain, a.IDs = slices.Clone(up.Chain), slices.Clone(up.IDs)
		// The limits of an organisation count the money of everything below it, in one currency and one calendar.
		if a.Currency != "" && up.Currency != "" && a.Currency != up.Currency {
			d.fault(it.ref(), "currency is %s, but that of its organisation is %s: an organisation has one", a.Currency, up.Currency)
		}
		if a.Zone != "" && a.Zone != up.Zone {
			d.fault(it.ref(), "timezone is %s, but that of its organisation is %s: an organisation has one calendar", a.Zone, up.Zone)
		}
		a.Currency, a.Zone = up.Currency, up.Zone
		if b.Book == "" {
			a.Books = up.Books
		}
		a.BillingAccount = cmp.Or(a.BillingAccount, up.BillingAccount)
		a.Seller = cmp.Or(a.Seller, up.Seller)
		a.Contract = cmp.Or(a.Contract, up.Contract)
		a.Rated = a.Rated || up.Rated
		a.Suspended = a.Suspended || up.Suspended
		a.Salt = up.Salt
		for _, l := range up.Labels {
			labels[l.Name] = l.Value
		}
		if a.Regions = common(b.Regions, up.Regions); len(a.Regions) == 0 && len(b.Regions) > 0 {
			d.fault(it.ref(), "none of its regions is allowed by the accounts above it, which allow %s", strings.Join(up.Regions, ", "))
		}
	} else if a.Path.Parent() == "" {
		if a.Currency == "" {
			d.fault(it.ref(), "an organisation needs a currency")
		}
		a.Zone = cmp.Or(a.Zone, "UTC")
		a.BillingAccount = cmp.Or(a.BillingAccount, string(a.Path))
	}
	a.Chain, a.IDs = append(a.Chain, a), append(a.IDs, a.ID)
	if a.Salt == "" || b.Isolation {
		a.Salt = d.secrets.Pseudonym("cache salt", a.ID, "")
	}
	maps.Copy(labels, b.Labels)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		a.Labels = append(a.Labels, usage.Label{Name: name, Value: labels[name]})
	}
}

// common returns what two lists of regions have in common. An empty list has every region.
func common(a, b []string) []string {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return slices.DeleteFunc(slices.Clone(a), func(r string) bool { return !slices.Contains(b, r) })
}

// sizeClasses are the usual ones and those that models have of their own.
func (d *draft) sizeClasses() []string {
	classes := catalog.SizeClasses()
	for _, name := range d.snapshot.modelNames {
		if c := d.snapshot.models[name].SizeClass; c != "" && !slices.Contains(classes, c) {
			classes = append(classes, c)
		}
	}
	return classes
}

func (d *draft) buildKey(it *item) {
	s, b := d.snapshot, it.value.(*keyBody)
	k := &Key{Public: b.Public, Name: it.Name, Account: s.byPath[b.Account], Hash: b.Hash, Revoked: b.Revoked, Created: b.Created, snapshot: s}
	if k.Account == nil {
		d.fault(it.ref(), "%s", d.unknown(kindAccount, string(b.Account)))
		return
	}
	k.Account.Project = true
	if k.Account.Books == nil {
		d.fault(it.ref(), "account %q has no price_book, nor has one above it: nothing can be used with the key", b.Account)
	}
	if other := s.byHash[k.Hash]; other != nil {
		mine, theirs := it.ref(), ledger.ObjectRef{Kind: kindKey, Name: other.Name}
		if _, here := d.at[mine]; !here {
			mine, theirs = theirs, mine
		}
		d.fault(mine, "it has the same secret as key %q", theirs.Name)
	}
	if other := s.byPublic[k.Public]; other != nil {
		d.fault(it.ref(), "its public id %s is that of key %q", k.Public, other.Name)
	}
	k.Limits = d.buildLimits(it, k.Account, k.Public, b.Limits)
	d.circle(it, k.Limits, append(limitsOf(k.Account), k.Limits...))
	s.keys = append(s.keys, k)
	s.byHash[k.Hash], s.byPublic[k.Public] = k, k
}
