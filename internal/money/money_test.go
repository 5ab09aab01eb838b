package money

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// The oracle: the same arithmetic on math/big.

var one128 = new(big.Int).Lsh(big.NewInt(1), 128)

func bigOf(a Amount) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(a.hi), 64)
	return n.Add(n, new(big.Int).SetUint64(a.lo))
}

// amountOf returns the amount of n femto-units, and false when it does not fit.
func amountOf(n *big.Int) (Amount, bool) {
	if n.BitLen() > 127 && n.Cmp(new(big.Int).Lsh(big.NewInt(-1), 127)) != 0 {
		return Amount{}, false
	}
	two := new(big.Int).Mod(n, one128)
	lo := new(big.Int).And(two, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	return Amount{int64(two.Rsh(two, 64).Uint64()), lo}, true
}

// bigHalfEven divides n by d > 0 and rounds half to even.
func bigHalfEven(n, d *big.Int) *big.Int {
	q, r := new(big.Int).DivMod(n, d, new(big.Int))
	if c := r.Lsh(r, 1).Cmp(d); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	return q
}

// same fails the test unless f returns want, or panics where want does not fit.
func same(t *testing.T, what string, want *big.Int, f func() Amount) {
	t.Helper()
	got, panicked := caught(f)
	expect, fits := amountOf(want)
	if panicked == fits || got != expect {
		t.Fatalf("%s = %v (panic %v), want %v (fits %v)", what, bigOf(got), panicked, want, fits)
	}
}

func caught(f func() Amount) (a Amount, panicked bool) {
	defer func() { panicked = recover() != nil }()
	return f(), false
}

// checkAmounts tests every law of two amounts and a count.
func checkAmounts(t *testing.T, a, b Amount, n int64) {
	x, y := bigOf(a), bigOf(b)
	same(t, "a+b", new(big.Int).Add(x, y), func() Amount { return a.Add(b) })
	same(t, "a-b", new(big.Int).Sub(x, y), func() Amount { return a.Sub(b) })
	same(t, "-a", new(big.Int).Neg(x), func() Amount { return a.Neg() })
	if got, want := a.Cmp(b), x.Cmp(y); got != want || b.Cmp(a) != -want {
		t.Fatalf("Cmp(%v, %v) = %d, want %d", x, y, got, want)
	}
	if a.Sign() != x.Sign() || a.IsZero() != (x.Sign() == 0) {
		t.Fatalf("Sign(%v) = %d", x, a.Sign())
	}
	if hi := Max(a, b); hi.Cmp(a) < 0 || hi.Cmp(b) < 0 || hi != a && hi != b {
		t.Fatalf("Max(%v, %v) = %v", x, y, hi)
	}
	if got, ok := a.Int64(); ok != x.IsInt64() || ok && Units(got) != a {
		t.Fatalf("Int64(%v) = %d, %v", x, got, ok)
	}
	if got, ok := Units(n).Int64(); !ok || got != n {
		t.Fatalf("Units(%d).Int64() = %d, %v", n, got, ok)
	}
	if r, err := RateFromAmount(a); err == nil {
		want := new(big.Int).Mul(x, big.NewInt(n))
		if n < 0 {
			want = one128 // must panic
		}
		same(t, "r*n", want, func() Amount { return r.Times(n) })
	}
	checkText(t, a)
}

// checkText tests that every written form of a is exact and reads back.
func checkText(t *testing.T, a Amount) {
	text := a.String()
	rat, ok := new(big.Rat).SetString(text)
	if !ok || rat.Cmp(new(big.Rat).SetFrac(bigOf(a), big.NewInt(unit))) != 0 {
		t.Fatalf("String(%v) = %q", bigOf(a), text)
	}
	if strings.Contains(text, ".") && strings.HasSuffix(text, "0") {
		t.Fatalf("String(%v) = %q is not the shortest", bigOf(a), text)
	}
	if back, err := ParseAmount(text); err != nil || back != a {
		t.Fatalf("ParseAmount(%q) = %v, %v", text, back, err)
	}
	if got := string(a.Append([]byte("x"))); got != "x"+text {
		t.Fatalf("Append = %q", got)
	}
	if back, err := AmountFromBinary(a.AppendBinary(nil)); err != nil || back != a {
		t.Fatalf("binary of %s reads back as %s, %v", text, back, err)
	}
	if hi, lo := a.Femto(); FromFemto(hi, lo) != a {
		t.Fatalf("FromFemto(Femto(%s)) differs", text)
	}
	var back Amount
	if b, err := json.Marshal(a); err != nil || string(b) != `"`+text+`"` || json.Unmarshal(b, &back) != nil || back != a {
		t.Fatalf("JSON of %s = %s, %v", text, b, err)
	}
}

// checkRounding tests Round, Convert and RateOf against the oracle.
func checkRounding(t *testing.T, a, b Amount, per int64, ppm []int64, minor int) {
	x := bigOf(a)
	g := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(15-minor)), nil)
	even := bigHalfEven(x, g)
	same(t, fmt.Sprintf("%v.Round(%d, HalfEven)", x, minor), even.Mul(even, g), func() Amount { return a.Round(minor, HalfEven) })
	away := new(big.Int).Abs(x)
	away.Add(away.Lsh(away, 1), g).Quo(away, new(big.Int).Lsh(g, 1)).Mul(away, g)
	if x.Sign() < 0 {
		away.Neg(away)
	}
	same(t, fmt.Sprintf("%v.Round(%d, HalfAwayFromZero)", x, minor), away, func() Amount { return a.Round(minor, HalfAwayFromZero) })
	if r, err := RateFromAmount(b); err == nil {
		want := bigHalfEven(new(big.Int).Mul(x, bigOf(b)), big.NewInt(unit))
		same(t, fmt.Sprintf("%v.Convert(%v)", x, r), want, func() Amount { return a.Convert(r) })
	}
	num, den := new(big.Int).Set(x), big.NewInt(per)
	for _, m := range ppm {
		num.Mul(num, big.NewInt(m))
		den.Mul(den, big.NewInt(million))
	}
	r, err := RateOf(a, per, ppm...)
	if x.Sign() < 0 {
		if err == nil {
			t.Fatalf("RateOf(%v) took a negative price", x)
		}
		return
	}
	want, fits := amountOf(bigHalfEven(num, den))
	fits = fits && want.Cmp(maxRate) <= 0
	if fits != (err == nil) || fits && r.Amount() != want {
		t.Fatalf("RateOf(%v, %d, %v) = %v, %v, want %v (fits %v)", x, per, ppm, r, err, want, fits)
	}
}

// checkSplit tests the laws of Split: the parts add up, each is its share rounded down or up to one whole unit, and
// none of a smaller remainder was rounded up before one of a larger, or of the same and earlier.
func checkSplit(t *testing.T, a Amount, minor int, weights []int64) {
	g := new(big.Int).SetUint64(granule(minor))
	total := new(big.Int)
	for _, w := range weights {
		total.Add(total, big.NewInt(w))
	}
	parts := a.Split(minor, weights)
	var sum Amount
	up := make([]bool, len(parts))
	rem := make([]*big.Int, len(parts))
	for i, part := range parts {
		sum = sum.Add(part)
		whole := new(big.Int).Abs(bigOf(a))
		floor, r := whole.Quo(whole, g).Mul(whole, big.NewInt(weights[i])).QuoRem(whole, total, new(big.Int))
		over := new(big.Int).Abs(bigOf(part))
		over.Sub(over, floor.Mul(floor, g))
		up[i], rem[i] = over.Cmp(g) == 0, r
		if over.Sign() != 0 && !up[i] || part.Sign()*a.Sign() < 0 {
			t.Fatalf("Split(%s, %d, %v): part %d is %s", a, minor, weights, i, part)
		}
	}
	if sum != a {
		t.Fatalf("Split(%s, %d, %v) = %v adds up to %s", a, minor, weights, parts, sum)
	}
	for i := range parts {
		for j := range i {
			c := rem[j].Cmp(rem[i])
			if c >= 0 && up[i] && !up[j] || c < 0 && up[j] && !up[i] {
				t.Fatalf("Split(%s, %d, %v) = %v: the larger remainder, or the earlier of two, goes first", a, minor, weights, parts)
			}
		}
	}
}

// randomAmount returns amounts of every size, often at an edge.
func randomAmount(r *rand.Rand) Amount {
	a := Amount{int64(r.Uint64()), r.Uint64()}
	switch r.IntN(6) {
	case 0:
		return Amount{a.hi >> 63, a.lo}
	case 1:
		return Units(int64(a.lo) >> r.IntN(64))
	case 2:
		return Amount{a.hi >> r.IntN(64), uint64(int64(a.lo) >> 63)}
	case 3:
		return Amount{int64(r.IntN(3)-1) << 63, uint64(r.IntN(3) - 1)}
	case 4:
		return Units(r.Int64N(2_000_001) - 1_000_000).Add(Amount{0, 500_000_000_000_000})
	}
	return Amount{a.hi >> r.IntN(64), a.lo}
}

func TestLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 8_000 {
		a, b := randomAmount(r), randomAmount(r)
		checkAmounts(t, a, b, int64(r.Uint64())>>r.IntN(64))
		ppm := make([]int64, r.IntN(5))
		for i := range ppm {
			ppm[i] = r.Int64N(1000*million) >> r.IntN(20)
		}
		checkRounding(t, a, b, 1+r.Int64N(math.MaxInt64)>>r.IntN(63), ppm, r.IntN(16))
		weights := make([]int64, 1+r.IntN(6))
		for i := range weights {
			weights[i] = r.Int64N(math.MaxInt64/8) >> r.IntN(61)
		}
		weights[0]++
		minor := r.IntN(16)
		if whole, panicked := caught(func() Amount { return a.Round(minor, HalfEven) }); !panicked {
			checkSplit(t, whole, minor, weights)
		}
	}
}

// The order in which amounts are added does not matter.
func TestAdditionCommutes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	list := make([]Amount, 1000)
	for i := range list {
		list[i] = Amount{int64(r.Uint64()) >> 11, r.Uint64()}
	}
	add := func() (sum Amount) {
		for _, a := range list {
			sum = sum.Add(a)
		}
		return sum
	}
	want := add()
	for range 10 {
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if got := add(); got != want {
			t.Fatalf("sum in another order is %s, want %s", got, want)
		}
	}
}

func FuzzAmounts(f *testing.F) {
	f.Add(int64(0), uint64(1), int64(-1), uint64(math.MaxUint64), int64(1))
	f.Add(int64(math.MinInt64), uint64(0), int64(math.MaxInt64), uint64(math.MaxUint64), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, ahi int64, alo uint64, bhi int64, blo uint64, n int64) {
		checkAmounts(t, Amount{ahi, alo}, Amount{bhi, blo}, n)
	})
}

func FuzzRounding(f *testing.F) {
	f.Add(int64(0), uint64(2500000000), int64(0), uint64(5), int64(1), int64(1100000), int64(500000), 9)
	f.Add(int64(math.MinInt64), uint64(0), int64(3), uint64(0), int64(3600000), int64(1), int64(333333), 2)
	f.Fuzz(func(t *testing.T, ahi int64, alo uint64, bhi int64, blo uint64, per, m1, m2 int64, minor int) {
		if per < 1 || m1|m2 < 0 || max(m1, m2) > 1000*million || minor < 0 || minor > 15 {
			return
		}
		checkRounding(t, Amount{ahi, alo}, Amount{bhi, blo}, per, []int64{m1, m2}, minor)
	})
}

func FuzzSplit(f *testing.F) {
	f.Add(int64(0), uint64(10*unit), int64(1), int64(1), int64(1), 2)
	f.Add(int64(-1), uint64(7), int64(0), int64(5), int64(math.MaxInt64), 15)
	f.Fuzz(func(t *testing.T, hi int64, lo uint64, w1, w2, w3 int64, minor int) {
		if w1|w2|w3 < 0 || w1|w2|w3 == 0 || minor < 0 || minor > 15 || uint64(w1)+uint64(w2)+uint64(w3) < uint64(w1) {
			return
		}
		a, panicked := caught(func() Amount { return Amount{hi, lo}.Round(minor, HalfEven) })
		if !panicked && uint64(w1)+uint64(w2) <= math.MaxUint64-uint64(w3) {
			checkSplit(t, a, minor, []int64{w1, w2, w3})
		}
	})
}

// What ParseAmount takes has no second reading: it is what math/big reads, and String writes the same number.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "-0.5", "12", "0,10", "1e12", "94.500000000000000", "170141183460469231731687.303715884105728"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAmount(s)
		if err != nil {
			return
		}
		rat, ok := new(big.Rat).SetString(s)
		if !ok || rat.Cmp(new(big.Rat).SetFrac(bigOf(a), big.NewInt(unit))) != 0 {
			t.Fatalf("ParseAmount(%q) = %s", s, a)
		}
		checkText(t, a)
	})
}

func TestParseAmount(t *testing.T) {
	const largest = "170141183460469231731687.303715884105727"
	for _, c := range []struct{ in, want string }{ // want "" is an error
		{"0", "0"}, {"-0", "0"}, {"12", "12"}, {"0.0042", "0.0042"}, {"-0.5", "-0.5"}, {"1.00", "1"},
		{"0.000000000000001", "0.000000000000001"}, {"1000000", "1000000"}, {"-1", "-1"},
		{largest, largest}, {"-170141183460469231731687.303715884105728", "-170141183460469231731687.303715884105728"},
		{"170141183460469231731687.303715884105728", ""}, {"-170141183460469231731687.303715884105729", ""},
		{"999999999999999999999999", ""}, {"100000000000000000000000000000", ""},
		{"0.100000000000000000000000000000", ""}, {"0.0000000000000001", ""}, {"0.0000000000000000", ""},
		{"", ""}, {"-", ""}, {".", ""}, {".5", ""}, {"5.", ""}, {"-.5", ""}, {"+1", ""}, {"--1", ""}, {"1-", ""},
		{"0,10", ""}, {"1,000", ""}, {"1_000", ""}, {"1e12", ""}, {"1E2", ""}, {"0x10", ""}, {"NaN", ""}, {"Inf", ""},
		{" 1", ""}, {"1 ", ""}, {"1\n", ""}, {"007", ""}, {"00", ""}, {"00.5", ""}, {"1.2.3", ""}, {"١", ""},
	} {
		got, err := ParseAmount(c.in)
		if (err != nil) != (c.want == "") || err == nil && got.String() != c.want {
			t.Errorf("ParseAmount(%q) = %v, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestParseRate(t *testing.T) {
	for _, c := range []struct {
		price string
		per   int64
		want  string // of a single unit; "" is an error
	}{
		{"1.00", 1_000_000, "0.000001"},
		{"0.333333333", 1_000_000, "0.000000333333333"},
		{"0.0000000005", 1_000_000, "0"},                 // half a femto-unit, to the even 0
		{"0.0000000015", 1_000_000, "0.000000000000002"}, // one and a half, to the even 2
		{"0.00000000050001", 1_000_000, "0.000000000000001"},
		{"3.00", 3_600_000, "0.000000833333333"},
		{"2.50", 3, "0.833333333333333"}, {"5", 3, "1.666666666666667"},
		{"1000000", 1, "1000000"}, {"1000000000000", 1_000_000, "1000000"},
		{"1000000.000000000000001", 1, ""}, {"1000000000001", 1_000_000, ""}, {"1000000000000", 1, ""},
		{"170141183460469231731687", 1, ""},
		{"-1", 1_000_000, ""}, {"1e12", 1_000_000, ""}, {"0,10", 1_000_000, ""}, {"", 1, ""},
		{"1", 0, ""}, {"1", -1, ""},
	} {
		got, err := ParseRate(c.price, c.per)
		if (err != nil) != (c.want == "") || err == nil && got.String() != c.want {
			t.Errorf("ParseRate(%q, %d) = %v, %v, want %q", c.price, c.per, got, err, c.want)
		}
	}
}

func TestRateOfRefuses(t *testing.T) {
	for _, ppm := range [][]int64{{-1}, {1000*million + 1}, {1, 1, 1, 1, 1}, {1000 * million, 1000 * million}} {
		if r, err := RateOf(Units(2*unit), 1, ppm...); err == nil {
			t.Errorf("RateOf(2, 1, %v) = %v, want an error", ppm, r)
		}
	}
}

// A list price that is no whole number of femto-units is rounded once, with its multipliers: 0.5 × 3 is 1.5, so 2, and
// not 0 × 3.
func TestRoundedOnce(t *testing.T) {
	price, err := ParseAmount("0.0000000005")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := RateOf(price, 1_000_000, 3*million); err != nil || r.Amount() != Units(2) {
		t.Errorf("RateOf = %v, %v, want 2 femto-units", r, err)
	}
	// A remainder of an early division is enough to break a tie of the last.
	for _, c := range []struct {
		femto int64
		ppm   []int64
	}{{1, []int64{1_500_001}}, {1_500_000_000_001, []int64{1, 1}}} {
		if r, err := RateOf(Units(c.femto), 3, c.ppm...); err != nil || r.Amount() != Units(1) {
			t.Errorf("RateOf(%d femto-units, 3, %d) = %v, %v, want 1 femto-unit", c.femto, c.ppm, r, err)
		}
	}
	// 5 × 0.9 × 1.1 = 4.95, so 5; rounding in between gives 4 × 1.1 = 4.4, so 4.
	if got := (Rate{Units(5)}).Scale(900_000, 1_100_000); got.Amount() != Units(5) {
		t.Errorf("Scale = %v, want 5 femto-units", got)
	}
}

func TestRefusedJSON(t *testing.T) {
	for _, s := range []string{`1`, `0.1`, `null`, `"1e3"`, `"0,1"`, `""`, `"-0.1"x`, `true`, `{}`} {
		var a Amount
		if json.Unmarshal([]byte(s), &a) == nil {
			t.Errorf("amount read from %s", s)
		}
		var r Rate
		if json.Unmarshal([]byte(s), &r) == nil {
			t.Errorf("rate read from %s", s)
		}
	}
	var r Rate
	if json.Unmarshal([]byte(`"-1"`), &r) == nil || json.Unmarshal([]byte(`"1000001"`), &r) == nil {
		t.Error("rate out of range was read")
	}
	if err := json.Unmarshal([]byte(`"0.25"`), &r); err != nil || r.String() != "0.25" {
		t.Errorf("rate = %v, %v", r, err)
	}
	for _, n := range []int{0, 15, 17} {
		if _, err := AmountFromBinary(make([]byte, n)); err == nil {
			t.Errorf("amount read from %d bytes", n)
		}
	}
}

func TestPanics(t *testing.T) {
	for name, f := range map[string]func() Amount{
		"Times of a negative count":   func() Amount { return Rate{Units(1)}.Times(-1) },
		"Times beyond 128 bits":       func() Amount { return Rate{maxRate}.Times(math.MaxInt64) },
		"Scale beyond the cap":        func() Amount { return Rate{maxRate}.Scale(million + 1).Amount() },
		"Round to 16 decimals":        func() Amount { return Units(1).Round(16, HalfEven) },
		"Round to -1 decimals":        func() Amount { return Units(1).Round(-1, HalfEven) },
		"Round in an unknown mode":    func() Amount { return Units(1).Round(2, 9) },
		"Split with finer decimals":   func() Amount { return Units(1).Split(2, []int64{1})[0] },
		"Split by a negative weight":  func() Amount { return Units(1).Split(15, []int64{2, -1})[0] },
		"Split over no weight":        func() Amount { return Units(1).Split(15, []int64{0, 0})[0] },
		"Split over nobody":           func() Amount { return Units(1).Split(15, nil)[0] },
		"Split beyond 64-bit weights": func() Amount { return Units(1).Split(15, []int64{math.MaxInt64, math.MaxInt64, 3})[0] },
	} {
		if got, panicked := caught(f); !panicked {
			t.Errorf("%s = %v, want a panic", name, got)
		}
	}
	if got := (Rate{maxRate}).Times(1_000_000_000_000_000); got.String() != "1000000000000000000000" {
		t.Errorf("the largest rate times the largest count = %s", got)
	}
}

func TestNoAllocations(t *testing.T) {
	buf := make([]byte, 0, 64)
	a, r := Amount{12345, 678}, Rate{maxRate}
	if n := testing.AllocsPerRun(100, func() {
		a = a.Add(r.Times(3)).Sub(r.Times(3))
		buf = a.Append(a.AppendBinary(buf[:0]))
		r = r.Scale(900_000, 1_000_000)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkTimes(b *testing.B) {
	b.ReportAllocs()
	r, sum := Rate{Units(150_000_000)}, Amount{}
	for n := int64(0); b.Loop(); n = (n + 1) & 0xffff {
		sum = sum.Add(r.Times(n))
	}
	if sum.IsZero() {
		b.Fatal("nothing was added")
	}
}

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	buf, a := make([]byte, 0, 64), Units(702_300_000_000)
	for b.Loop() {
		buf = a.Append(buf[:0])
	}
}

func BenchmarkScale(b *testing.B) {
	b.ReportAllocs()
	r := Rate{Units(150_000_000)}
	for b.Loop() {
		_ = r.Scale(1_250_000, 900_000)
	}
}
