package ledger

import (
	"encoding/binary"
	"fmt"
	"math/big"

	"talea/internal/usage"
)

// The numbers of docs/ledger-format.md, once more: they are not the constants that the writer uses.
const (
	auditVersion = 1

	auditSubjectKind    = 1
	auditRowKind        = 2
	auditLimitKind      = 3
	auditPeriodKind     = 4
	auditStepKind       = 5
	auditOverrideKind   = 6
	auditNoticeKind     = 7
	auditCounterKind    = 8
	auditCorrectionKind = 9
	auditHoldKind       = 16
	auditExtendKind     = 17
	auditCheckpointKind = 18
	auditSettleKind     = 19
	auditVoidKind       = 20

	auditMeters  = 11
	auditRequest = 8 // the meter of requests
	auditWork    = 9 // and that of work
	auditWindows = 7
	auditTotal   = 7 // the window without an end
	auditMaxN    = 1_000_000_000_000_000

	auditByMoney    = 0
	auditByInput    = 1
	auditByOutput   = 2
	auditByTokens   = 3
	auditByRequests = 4
	auditByWork     = 5
	auditByGPU      = 6

	auditBlock     = 0
	auditAlertOnly = 1
	auditDegrade   = 2
	auditActions   = 3
)

var auditKindNames = map[byte]string{
	auditSubjectKind: "subject", auditRowKind: "price row", auditLimitKind: "limit", auditPeriodKind: "period", auditStepKind: "price step", auditOverrideKind: "override",
	auditNoticeKind: "notice", auditCounterKind: "counter", auditCorrectionKind: "correction", auditHoldKind: "hold",
	auditExtendKind: "extend", auditCheckpointKind: "checkpoint", auditSettleKind: "settle", auditVoidKind: "void",
}

var auditMaxRate = new(big.Int).Exp(big.NewInt(10), big.NewInt(21), nil)

// auditReader reads the bytes of one entry. After the first fault it returns zeros.
type auditReader struct {
	b     []byte
	fault string
}

func (r *auditReader) failed() error {
	if r.fault == "" {
		return nil
	}
	return difference(r.fault)
}

func (r *auditReader) fail(format string, args ...any) {
	if r.fault == "" {
		r.fault = fmt.Sprintf(format, args...)
	}
	r.b = nil
}

func (r *auditReader) octet() byte {
	if len(r.b) == 0 {
		r.fail("it ends too early")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// below reads a byte that numbers one of n things.
func (r *auditReader) below(n byte, what string) byte {
	v := r.octet()
	if v >= n {
		r.fail("%s %d is not known", what, v)
		return 0
	}
	return v
}

func (r *auditReader) flag() bool { return r.below(2, "truth value") == 1 }

// wide reads 64 bits without a sign, in their shortest form.
func (r *auditReader) wide() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("it ends too early, or a number is longer than 64 bits")
		return 0
	}
	if n > 1 && r.b[n-1] == 0 {
		r.fail("a number is not in its shortest form")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *auditReader) whole() int64 {
	v := r.wide()
	if v>>63 != 0 {
		r.fail("a number is above 2^63 - 1")
		return 0
	}
	return int64(v)
}

func (r *auditReader) signed() int64 {
	v := r.wide()
	return int64(v>>1) ^ -int64(v&1)
}

// list reads the length of a list of things of at least one byte each.
func (r *auditReader) list() int64 {
	n := r.whole()
	if n > int64(len(r.b)) {
		r.fail("a list or text is longer than the entry")
		return 0
	}
	return n
}

func (r *auditReader) text() string {
	n := r.list()
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *auditReader) texts(n int) {
	for range n {
		r.text()
	}
}

func (r *auditReader) amount() *big.Int {
	upper, lower := r.signed(), r.wide()
	v := new(big.Int).Lsh(big.NewInt(upper), 64)
	return v.Add(v, new(big.Int).SetUint64(lower))
}

func (r *auditReader) natural(what string) *big.Int {
	v := r.amount()
	if v.Sign() < 0 {
		r.fail("%s is negative", what)
	}
	return v
}

func (r *auditReader) rate() *big.Int {
	v := r.natural("a price")
	if v.Cmp(auditMaxRate) > 0 {
		r.fail("a price is above 10^6 for one unit")
	}
	return v
}

// auditCounts are counts by meter; mask says which are known.
type auditCounts struct {
	mask int64
	n    [auditMeters]int64
}

func (c *auditCounts) input() int64  { return c.n[0] + c.n[1] + c.n[2] }
func (c *auditCounts) output() int64 { return c.n[3] + c.n[4] }

func (r *auditReader) mask() int64 {
	mask := r.whole()
	if mask>>auditMeters != 0 {
		r.fail("it has a meter that is not known")
		return 0
	}
	return mask
}

func (r *auditReader) counts() (c auditCounts) {
	c.mask = r.mask()
	for m := range c.n {
		if c.mask>>m&1 == 1 {
			c.n[m] = r.whole()
			if c.n[m] > auditMaxN {
				r.fail("a count is above 10^15")
			}
		}
	}
	return c
}

// auditBounds are the most tokens that a request can use.
type auditBounds struct{ input, output, joint int64 }

func (r *auditReader) bounds() auditBounds {
	b := auditBounds{r.whole(), r.whole(), r.whole()}
	if max(b.input, b.output, b.joint) > auditMaxN {
		r.fail("a bound is above 10^15")
	}
	return b
}

// auditTouch is what a hold holds of one limit.
type auditTouch struct {
	limit, period int64
	held          *big.Int
}

func (r *auditReader) touched() []auditTouch {
	list := make([]auditTouch, 0, 4)
	for range r.list() {
		list = append(list, auditTouch{r.whole(), r.whole(), r.natural("what is held")})
	}
	return list
}

type auditHeader struct {
	kind                   byte
	shard, epoch, org, seq int64
	at                     int64 // Unix microseconds
	request                int64
	idempotency            string // of the column
}

func (r *auditReader) header() (h auditHeader) {
	if v := r.octet(); v != auditVersion {
		r.fail("version %d of the format is not known", v)
		return h
	}
	h.kind = r.octet()
	h.shard, h.epoch, h.org, h.seq = r.whole(), r.whole(), r.whole(), r.whole()
	h.at, h.request = r.signed(), r.whole()
	return h
}

// say names the entry for people: " (settle, req_…)".
func (h *auditHeader) say() string {
	name := auditKindNames[h.kind]
	switch {
	case name == "":
		return ""
	case h.request == 0:
		return " (" + name + ")"
	}
	return " (" + name + ", " + usage.ID(h.request).String() + ")"
}

// auditSubject is what the rules need of a subject.
type auditSubject struct {
	path                  []int64 // organisation first
	key, model, sizeClass string
	contract              string
	work                  [4]int64 // picoseconds: fixed, for an input token, for an output token, for a pair
}

func (o *auditOrg) subject(r *auditReader) error {
	number, s := r.whole(), &auditSubject{}
	for range r.list() {
		s.path = append(s.path, r.whole())
	}
	label := r.text()
	r.text() // billing account
	s.key = r.text()
	r.text() // seller
	s.contract = r.text()
	r.texts(4) // currency, price book, book version, model asked
	s.model = r.text()
	r.texts(3) // model revision, quantisation, tokenizer
	s.sizeClass = r.text()
	for i := range s.work {
		s.work[i] = r.whole()
	}
	r.texts(int(2 * r.list()))
	if err := r.failed(); err != nil {
		return err
	}
	switch {
	case number != int64(len(o.subjects))+1:
		return differ("subject %d comes after subject %d", number, len(o.subjects))
	case len(s.path) == 0 || s.path[0] != int64(o.id):
		return differ("its path does not begin with the organisation")
	}
	o.subjects = append(o.subjects, s)
	o.learnName(label)
	return nil
}

// auditRow is a price row.
type auditRow struct {
	minimum *big.Int
	price   [auditMeters]*big.Int // nil: none
	forms   []auditForm           // of prices that depend on how much
}

func (o *auditOrg) row(r *auditReader) error {
	number := r.whole()
	r.text()
	r.whole() // multiplier
	row := &auditRow{minimum: r.natural("a minimum charge")}
	mask := r.mask()
	for m := range row.price {
		if mask>>m&1 == 1 {
			row.price[m] = r.rate()
		}
	}
	for range r.list() {
		row.forms = append(row.forms, r.form())
	}
	if err := r.failed(); err != nil {
		return err
	}
	for i := range row.forms {
		if err := row.forms[i].sound(); err != nil {
			return err
		}
	}
	if number != int64(len(o.rows))+1 {
		return differ("price row %d comes after price row %d", number, len(o.rows))
	}
	o.rows = append(o.rows, row)
	return nil
}

// override reads what a start let pass. A rollback takes two people.
func (r *auditReader) override() error {
	what := r.octet()
	names := make([]string, r.list())
	for i := range names {
		names[i] = r.text()
	}
	r.signed()
	seq, hash := r.whole(), r.text()
	if err := r.failed(); err != nil {
		return err
	}
	switch {
	case what == 1 && len(names) == 0 && seq == 0 && hash == "":
	case what == 2 && len(names) == 2 && names[0] != "" && names[1] != "" && names[0] != names[1] && seq > 0 && len(hash) == 64:
	default:
		return differ("it lets %d pass by %d names, of entry %d", what, len(names), seq)
	}
	return nil
}
