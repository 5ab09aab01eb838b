// Package world keeps what is configured: accounts, keys, engines, models and price books, as one snapshot that is swapped
// whole. It reads resource files, checks them, says what they would change, makes the change durable and shows it. It does
// not keep balances or write to a disk (ledger), find a caller's key (identity), or read files and secrets (cli, app).
//
// # Invariants
//
//   - A change is whole or not at all: on any error the store and the snapshot are what they were.
//   - A change is durable before anybody sees it.
//   - A snapshot never changes; two values read from one snapshot fit together.
//   - The number of an object is never given to another, also after the object was deleted.
//   - Every object has one owner, "file" or "api"; nobody but its owner changes it. Revoking a key is for everybody.
//   - No secret is stored but hashed or sealed, and none is in an error, a plan or a stored object.
//   - A revoked key stays revoked when the file that it came from is applied again.
//
// To add a member to a kind: the spec in file.go, the body in object.go (omitted where empty, so that stored objects stay
// as they are), its meaning in build.go, a row in the tests of errors.
//
// Start reading at World.Apply, then draft.go.
package world

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"talea/internal/account"
	"talea/internal/ledger"
	"talea/internal/resource"
)

// Store keeps the objects of the world and the limits that follow from them.
type Store interface {
	// Objects returns everything that was ever published, deleted objects included.
	Objects() ([]ledger.Object, error)
	// Publish makes a change durable, all of it or nothing.
	Publish(context.Context, ledger.Publication) error
}

// Secrets does what needs the installation's own secret.
type Secrets interface {
	// Hash returns the keyed hash under which a key is stored and found.
	Hash(secret []byte) [32]byte
	// Mint makes a new key and its public id.
	Mint() (secret, public string, err error)
	// Seal encrypts what must be read again; the same text in the same context gives the same result.
	Seal(context, text string) string
	// Open reads what Seal wrote.
	Open(context, sealed string) (string, error)
	// Pseudonym stands for a text of an account.
	Pseudonym(purpose string, scope account.ID, text string) string
}

// World holds the current snapshot and changes it. It may be used concurrently.
type World struct {
	store   Store
	secrets Secrets
	clock   ledger.Clock
	current atomic.Pointer[Snapshot]

	mu       sync.Mutex // guards what follows, and makes one change after the other
	items    items
	lastID   map[string]int64 // the largest number ever given, by kind
	watchers []func(old, now *Snapshot)
}

// Open reads the world from its store. An empty store is an empty world.
func Open(store Store, secrets Secrets, clock ledger.Clock) (*World, error) {
	objects, err := store.Objects()
	if err != nil {
		return nil, fmt.Errorf("cannot open the world: %w", err)
	}
	w := &World{store: store, secrets: secrets, clock: clock, items: items{}, lastID: map[string]int64{}}
	for _, o := range objects {
		it, err := readObject(o)
		if err != nil {
			return nil, fmt.Errorf("cannot open the world: %w", err)
		}
		w.items[it.ref()] = it
		w.lastID[o.Kind] = max(w.lastID[o.Kind], o.ID)
	}
	d := w.draft(Source{})
	if err := d.build(1); err != nil {
		return nil, fmt.Errorf("cannot open the world: %w", err)
	}
	w.current.Store(d.snapshot)
	return w, nil
}

// Current returns the snapshot of this instant. Use one for a whole request.
func (w *World) Current() *Snapshot { return w.current.Load() }

// OnSwap has f called after each change, one call after the other; the next change waits for it, so f must not make one.
func (w *World) OnSwap(f func(old, now *Snapshot)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchers = append(w.watchers, f)
}

// Plan says what Apply would do, and changes nothing. Its error says what is wrong with the source: a resource.Errors.
func (w *World) Plan(src Source, prune bool) (*Plan, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, err := w.read(src, prune)
	if err != nil {
		return nil, err
	}
	return &d.plan, nil
}

// Apply makes the world what the source says. Objects that are not in the source stay as they are; with prune those that
// have the same owner are deleted. On return without an error the change is durable and is the current snapshot; on an
// error nothing has changed. A fault of the source is a resource.Errors.
func (w *World) Apply(ctx context.Context, src Source, prune bool) (*Plan, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, err := w.read(src, prune)
	if err != nil {
		return nil, err
	}
	if err := w.commit(ctx, d); err != nil {
		return nil, err
	}
	return &d.plan, nil
}

// read makes the draft that a source asks for. The caller holds w.mu.
func (w *World) read(src Source, prune bool) (*draft, error) {
	d := w.draft(src)
	wanted, err := src.read(w.secrets)
	if err != nil {
		return nil, err
	}
	for _, it := range wanted {
		d.put(it.item, it.pos)
	}
	if prune {
		d.prune()
	}
	if err := d.build(w.Current().Number + 1); err != nil {
		return nil, err
	}
	if err := d.fixed(w.Current()); err != nil {
		return nil, err
	}
	d.note(wanted)
	return d, nil
}

// fixed refuses changes of what an organisation's balances are counted in: amounts in one currency are nothing in another,
// and a calendar in another zone has no period in which they were used.
func (d *draft) fixed(was *Snapshot) error {
	for _, a := range d.snapshot.Accounts() {
		old := was.AccountByID(a.ID)
		if a.Parent != nil || old == nil {
			continue
		}
		ref := ledger.ObjectRef{Kind: kindAccount, Name: string(a.Path)}
		if a.Currency != old.Currency {
			d.fault(ref, "the currency of an organisation cannot change from %s to %s: what was used is counted in it; make a new organisation", old.Currency, a.Currency)
		}
		if a.Zone != old.Zone {
			d.fault(ref, "the time zone of an organisation cannot change from %s to %s: its budget periods are of that calendar; make a new organisation", old.Zone, a.Zone)
		}
	}
	return d.err()
}

// commit makes a draft durable and current. The caller holds w.mu.
func (w *World) commit(ctx context.Context, d *draft) error {
	if len(d.changed) == 0 {
		return nil
	}
	p := ledger.Publication{Objects: d.objects()}
	for _, a := range d.snapshot.Accounts() {
		p.Limits = append(p.Limits, a.Limits...)
	}
	for _, k := range d.snapshot.Keys() {
		p.Limits = append(p.Limits, k.Limits...)
	}
	if err := w.store.Publish(ctx, p); err != nil {
		return fmt.Errorf("cannot publish the change, so nothing has changed: %w", err)
	}
	w.items, w.lastID = d.items, d.lastID
	old := w.current.Swap(d.snapshot)
	for _, f := range w.watchers {
		f(old, d.snapshot)
	}
	return nil
}

// CreateKey makes a new key for an account, owned by the API. The secret is returned this once and is not kept.
func (w *World) CreateKey(ctx context.Context, path account.Path, name string) (secret string, k *Key, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := checkKeyName(name); err != nil {
		return "", nil, fmt.Errorf("cannot create a key: %w", err)
	}
	d := w.draft(Source{ManagedBy: "api"})
	ref := ledger.ObjectRef{Kind: kindKey, Name: name}
	if d.items.live(ref) {
		return "", nil, fmt.Errorf("cannot create key %q: there is one of that name", name)
	}
	secret, public, err := w.secrets.Mint()
	if err != nil {
		return "", nil, fmt.Errorf("cannot create key %q: %w", name, err)
	}
	hash := w.secrets.Hash([]byte(secret))
	d.put(newItem(ref, &keyBody{Account: path, Public: public, Hash: hash}), resource.Pos{})
	if err := d.build(w.Current().Number + 1); err != nil {
		return "", nil, fmt.Errorf("cannot create a key: %w", err)
	}
	if err := w.commit(ctx, d); err != nil {
		return "", nil, err
	}
	return secret, d.snapshot.ByHash(hash), nil
}

// RevokeKey ends a key, given by its name or its public id, for good. Revoking one that is revoked changes nothing.
func (w *World) RevokeKey(ctx context.Context, nameOrPublic string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	ref := ledger.ObjectRef{Kind: kindKey, Name: nameOrPublic}
	if k := w.Current().byPublic[nameOrPublic]; k != nil {
		ref.Name = k.Name
	}
	if !w.items.live(ref) {
		return fmt.Errorf("cannot revoke a key: unknown key %q%s", nameOrPublic, suggest(nameOrPublic, w.items.names(kindKey)))
	}
	old := w.items[ref]
	d := w.draft(Source{ManagedBy: old.ManagedBy})
	body := *old.value.(*keyBody)
	body.Revoked = true
	d.put(newItem(ref, &body), resource.Pos{})
	if err := d.build(w.Current().Number + 1); err != nil {
		return fmt.Errorf("cannot revoke key %q: %w", ref.Name, err)
	}
	return w.commit(ctx, d)
}

// draft begins a change. The caller holds w.mu, or nobody else has w.
func (w *World) draft(src Source) *draft {
	return &draft{
		items: maps.Clone(w.items), lastID: maps.Clone(w.lastID), secrets: w.secrets, now: w.clock.Now().UTC().Truncate(time.Second),
		file: src.File, managedBy: cmp.Or(src.ManagedBy, "file"), at: map[ledger.ObjectRef]resource.Pos{}, changed: map[ledger.ObjectRef]bool{},
	}
}

// sorted returns the live items of one kind, by name.
func (all items) sorted(kind string) []*item {
	var list []*item
	for _, it := range all {
		if it.Kind == kind && it.Body != nil {
			list = append(list, it)
		}
	}
	slices.SortFunc(list, func(a, b *item) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
