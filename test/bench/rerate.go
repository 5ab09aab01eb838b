package main

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"talea/internal/ledger"
	"talea/internal/price"
	"talea/internal/rating"
	"talea/internal/rerate"
	"talea/internal/store/sqlite"
	"talea/internal/usage"
	"talea/internal/world"
)

// rerateBooks are the price book of the records, and one with steps and windows that they are rated under again.
const rerateBooks = `price_books:
- name: public
  currency: EUR
  timezone: Europe/Berlin
  windows: [{name: night, days: [mon-sun], from: "22:00", to: "06:00", multiplier: "0.6"}]
  prices:
  - {model: m, meter: input, price: "1.00"}
  - {model: m, meter: output, form: graduated, scope: organisation, window: month, steps: [{up_to: 10000000, price: "4.00"}, {price: "3.00"}]}
- name: other
  currency: EUR
  prices:
  - {model: m, meter: input, form: package, package: 1000, price: "0.001"}
  - {model: m, meter: output, form: graduated, scope: organisation, window: month, steps: [{up_to: 5000000, price: "5.00"}, {price: "2.00"}]}
`

// rerates measures how fast records are rated again, on one processor.
func rerates(o *options) error {
	b, err := openBooks(false)
	if err != nil {
		return err
	}
	defer b.remove()
	other, err := b.priced()
	if err != nil {
		return err
	}
	const clients = 256
	var done atomic.Int64
	err = crowd(clients, func(client int) (bool, error) {
		if done.Add(1) > int64(o.records) {
			return false, nil
		}
		h, err := b.hold(client)
		if err != nil {
			return false, err
		}
		return true, b.settle(h)
	})
	if err != nil {
		return err
	}
	if err := b.ledger.Close(); err != nil {
		return err
	}
	b.ledger = nil
	store, err := sqlite.OpenReader(b.dir)
	if err != nil {
		return err
	}
	defer store.Close()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, way := range []struct {
		name  string
		draft *price.Book
	}{{"the original prices, every line compared", nil}, {"another book, with steps and packages", other}} {
		if err := rerateOnce(store, o.records, way.name, way.draft); err != nil {
			return err
		}
	}
	return nil
}

// priced publishes the books, and has the records rated under the first. It returns the other.
func (b *books) priced() (*price.Book, error) {
	book, err := rerate.ParseDraft("books", []byte(rerateBooks), "public")
	if err != nil {
		return nil, err
	}
	row, err := book.Row(price.Query{Model: "m"}, time.Now())
	if err != nil {
		return nil, err
	}
	b.row = &row
	if b.money, err = rating.Ceiling(b.bounds, usage.Work{}, b.row, nil); err != nil {
		return nil, err
	}
	for _, s := range b.subjects {
		s.BookVersion = book.Version
	}
	err = b.ledger.Publish(context.Background(), ledger.Publication{Objects: []ledger.Object{
		{Kind: "price_version", Name: book.Version, ID: 1, ManagedBy: "file", Body: book.Canonical()},
		{Kind: "price_book", Name: book.Name, ID: 1, ManagedBy: "file", Body: fmt.Appendf(nil, `{"versions":[%q]}`, book.Version)},
	}})
	if err != nil {
		return nil, err
	}
	return rerate.ParseDraft("books", []byte(rerateBooks), "other")
}

func rerateOnce(store *sqlite.Store, records int, name string, draft *price.Book) error {
	objects, err := store.Objects()
	if err != nil {
		return err
	}
	archive, err := world.ReadArchive(objects)
	if err != nil {
		return err
	}
	start := time.Now()
	past, err := ledger.ReadPast(store)
	if err != nil {
		return err
	}
	report, err := rerate.Run(context.Background(), past, archive, &rerate.Call{To: time.Now().Add(time.Hour), Draft: draft})
	if err != nil {
		return err
	}
	took := time.Since(start)
	if report.Difference != "" || report.Requests != int64(records) {
		return fmt.Errorf("%d of %d records were rated again: %s", report.Requests, records, report.Difference)
	}
	fmt.Printf("rerate: %d records, %s, one processor: %.1f s\n", records, name, took.Seconds())
	return nil
}
