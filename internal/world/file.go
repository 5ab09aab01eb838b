package world

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"talea/internal/account"
	"talea/internal/catalog"
	"talea/internal/engine"
	"talea/internal/ledger"
	"talea/internal/money"
	"talea/internal/period"
	"talea/internal/price"
	"talea/internal/resource"
)

// Source is a resource file, read by the caller together with the secrets that References named.
type Source struct {
	File      string // name, for messages
	Text      []byte
	Secrets   map[string]string // by reference ("file:keys/good"): the secret's text, without white space around it
	ManagedBy string            // owner of what is created: "file" ("" too) or "api"
}

// sections are the lists that a resource file can have.
var sections = []string{"engines", "models", "price_books", "accounts", "keys"}

type engineSpec struct {
	Pos           resource.Pos
	Name          string          `yaml:"name,required"`
	Kind          string          `yaml:"kind,required"`
	URL           string          `yaml:"url,required"`
	APIKey        resource.Secret `yaml:"api_key"`
	Region        string          `yaml:"region"`
	Version       string          `yaml:"version"`
	GPUs          gpuSpec         `yaml:"gpus"`
	MaxConcurrent int64           `yaml:"max_concurrent"`
	Weight        *int64          `yaml:"weight"`
}

type gpuSpec struct {
	Kind        string           `yaml:"kind"`
	Count       int64            `yaml:"count"`
	CostPerHour resource.Decimal `yaml:"cost_per_hour"`
	Currency    string           `yaml:"currency"`
}

type modelSpec struct {
	Pos              resource.Pos
	Name             string           `yaml:"name,required"`
	ServedAs         string           `yaml:"served_as"`
	Engines          []string         `yaml:"engines,required"`
	Parameters       resource.Decimal `yaml:"parameters"`
	ActiveParameters resource.Decimal `yaml:"active_parameters"`
	KVBytesPerToken  int64            `yaml:"kv_bytes_per_token"`
	SizeClass        string           `yaml:"size_class"`
	ContextTokens    int64            `yaml:"context_tokens,required"`
	MaxOutput        int64            `yaml:"max_output_tokens"`
	DefaultMaxOutput int64            `yaml:"default_max_output_tokens"`
	TokensPerByte    resource.Decimal `yaml:"tokens_per_byte"`
	MessageTokens    int64            `yaml:"message_tokens"`
	TemplateTokens   int64            `yaml:"template_tokens"`
	ImageTokens      int64            `yaml:"image_tokens"`
	AudioTokens      int64            `yaml:"audio_tokens"`
	ContextShift     bool             `yaml:"context_shift"`
	MaxConcurrent    int64            `yaml:"max_concurrent"`
	FlexBelow        resource.Decimal `yaml:"flex_below"`
	Family           string           `yaml:"family"`
	Revision         string           `yaml:"revision"`
	Quantisation     string           `yaml:"quantisation"`
	Tokenizer        string           `yaml:"tokenizer"`
}

type accountSpec struct {
	Pos            resource.Pos
	Path           string            `yaml:"path,required"`
	Currency       string            `yaml:"currency"`
	Timezone       string            `yaml:"timezone"`
	PriceBook      string            `yaml:"price_book"`
	BillingAccount string            `yaml:"billing_account"`
	Seller         string            `yaml:"seller"`
	Contract       string            `yaml:"contract"`
	Labels         map[string]string `yaml:"labels"`
	Rate           rateSpec          `yaml:"rate"`
	Limits         []limitSpec       `yaml:"limits"`
	Models         []string          `yaml:"models"`
	Regions        []string          `yaml:"regions"`
	Isolation      bool              `yaml:"isolation"`
	Suspended      bool              `yaml:"suspended"`
	ShowAmounts    bool              `yaml:"show_amounts"`
	OnShort        string            `yaml:"on_short"`
}

type rateSpec struct {
	Pos               resource.Pos
	RequestsPerMinute int64 `yaml:"requests_per_minute"`
	Burst             int64 `yaml:"burst"`
	TokensPerMinute   int64 `yaml:"tokens_per_minute"`
	TokenBurst        int64 `yaml:"token_burst"`
}

type keySpec struct {
	Pos     resource.Pos
	Name    string          `yaml:"name,required"`
	Account string          `yaml:"account,required"`
	Secret  resource.Secret `yaml:"secret,required"`
	Revoked bool            `yaml:"revoked"`
	Limits  []limitSpec     `yaml:"limits"`
}

// wanted is one object of a file, and where it stands.
type wanted struct {
	*item
	pos resource.Pos
}

// reader reads a file and collects what is wrong with it.
type reader struct {
	src     *Source
	secrets Secrets
	errs    resource.Errors
	list    []wanted
	seen    map[ledger.ObjectRef]resource.Pos
}

// References returns the secrets that a source refers to, in its order. The error says why the file cannot be read.
func References(src Source) ([]resource.Secret, error) {
	doc, err := resource.Parse(src.File, src.Text)
	if err != nil {
		return nil, err
	}
	var refs []resource.Secret
	// A fault of an item is for Apply to say, together with all others: what could be read of the item is filled in.
	for _, n := range doc.Section("engines") {
		var s engineSpec
		n.Decode(&s)
		refs = append(refs, s.APIKey)
	}
	for _, n := range doc.Section("keys") {
		var s keySpec
		n.Decode(&s)
		refs = append(refs, s.Secret)
	}
	return slices.DeleteFunc(refs, func(s resource.Secret) bool { return s.Ref == "" }), nil
}

// read reads the file into items without number and owner, and checks each by itself.
func (src *Source) read(secrets Secrets) ([]wanted, error) {
	doc, err := resource.Parse(src.File, src.Text)
	if err != nil {
		return nil, err
	}
	r := &reader{src: src, secrets: secrets, seen: map[ledger.ObjectRef]resource.Pos{}}
	r.errs.Add(doc.Only(sections...))
	each(r, doc, "engines", func(s *engineSpec) { r.add(kindEngine, s.Name, s.Pos, r.engine(s)) })
	each(r, doc, "models", func(s *modelSpec) { r.add(kindModel, s.Name, s.Pos, r.model(s)) })
	r.books(doc.Section("price_books"))
	each(r, doc, "accounts", func(s *accountSpec) { r.add(kindAccount, s.Path, s.Pos, r.account(s)) })
	each(r, doc, "keys", func(s *keySpec) { r.add(kindKey, s.Name, s.Pos, r.key(s)) })
	return r.list, r.errs.Err()
}

// each decodes the items of a section; one with faults is not taken further.
func each[T any](r *reader, doc *resource.Document, section string, take func(*T)) {
	for _, n := range doc.Section(section) {
		var s T
		if err := n.Decode(&s); err != nil {
			r.errs.Add(err)
			continue
		}
		take(&s)
	}
}

func (r *reader) fail(pos resource.Pos, format string, args ...any) {
	r.errs.Add(pos.Errorf(format, args...))
}

// add takes an object in, once by each name.
func (r *reader) add(kind, name string, pos resource.Pos, value any) {
	ref := ledger.ObjectRef{Kind: kind, Name: name}
	if first, ok := r.seen[ref]; ok {
		r.fail(pos, "%s %q is here twice; the first is on line %d", kind, name, first.Line)
		return
	}
	r.seen[ref] = pos
	r.list = append(r.list, wanted{newItem(ref, value), pos})
}

// named tests a name.
func (r *reader) named(pos resource.Pos, name string) {
	if err := checkName(name); err != nil {
		r.fail(pos, "%v", err)
	}
}

// secret returns what a reference stands for. No message shows it.
func (r *reader) secret(s resource.Secret, least int) string {
	text, ok := r.src.Secrets[s.Ref]
	unprintable := func(c rune) bool { return c <= ' ' || c > '~' }
	switch {
	case s.Ref == "":
		return ""
	case !ok:
		r.fail(s.Pos, "the secret %s could not be read", s.Ref)
	case text == "":
		r.fail(s.Pos, "the secret %s is empty", s.Ref)
	case len(text) < least:
		r.fail(s.Pos, "the secret %s is %d bytes long; at least %d, or it can be guessed", s.Ref, len(text), least)
	case len(text) > MaxSecret:
		r.fail(s.Pos, "the secret %s is %d bytes long; at most %d", s.Ref, len(text), MaxSecret)
	case strings.ContainsFunc(text, unprintable):
		r.fail(s.Pos, "the secret %s has blanks, line ends or other characters that no HTTP header can carry", s.Ref)
	}
	return text
}

func (r *reader) engine(s *engineSpec) *engineBody {
	r.named(s.Pos, s.Name)
	e := catalog.Engine{
		Name: s.Name, Kind: s.Kind, URL: strings.TrimRight(s.URL, "/"), Region: s.Region, Version: s.Version, GPUKind: s.GPUs.Kind,
		GPUCount: s.GPUs.Count, GPUCostPerHour: s.GPUs.CostPerHour.Text, GPUCurrency: s.GPUs.Currency, MaxConcurrent: s.MaxConcurrent, Weight: 1,
	}
	if s.Weight != nil {
		e.Weight = *s.Weight
	}
	if _, ok := engine.ByName(s.Kind); !ok {
		var known []string
		for _, d := range engine.Dialects {
			known = append(known, d.Name)
		}
		r.fail(s.Pos, "engine %q: unknown kind %q%s (any other that speaks OpenAI's API is openai)", s.Name, s.Kind, suggest(s.Kind, known))
	}
	if err := checkURL(e.URL); err != nil {
		r.fail(s.Pos, "engine %q: %v", s.Name, err)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{{"gpus.count", e.GPUCount}, {"max_concurrent", e.MaxConcurrent}, {"weight", e.Weight}} {
		if f.value < 0 || f.value > 1_000_000 {
			r.fail(s.Pos, "engine %q: %s must be from 0 to 1000000", s.Name, f.name)
		}
	}
	if cost := s.GPUs.CostPerHour; cost.Text != "" {
		if a, err := money.ParseAmount(cost.Text); err != nil {
			r.fail(cost.Pos, "engine %q: cost_per_hour: %v", s.Name, err)
		} else if a.Sign() < 0 {
			r.fail(cost.Pos, "engine %q: cost_per_hour is negative", s.Name)
		} else if !currencyForm.MatchString(e.GPUCurrency) {
			r.fail(cost.Pos, "engine %q: currency %q of cost_per_hour is not an ISO 4217 code such as EUR", s.Name, e.GPUCurrency)
		}
	}
	body := &engineBody{Engine: e}
	if key := r.secret(s.APIKey, 1); key != "" {
		body.SealedKey = r.secrets.Seal(engineKeyContext(s.Name), key)
	}
	return body
}

// engineKeyContext is what an engine's sealed key is bound to.
func engineKeyContext(name string) string { return fmt.Sprintf("API key of engine %q", name) }

// checkURL tests where an engine is. Its error shows no part of the URL: somebody may have written a password into it.
func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("url must be like http://host:port")
	case u.User != nil:
		return fmt.Errorf("url must have no user or password: use api_key")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fmt.Errorf("url must have no query and no fragment")
	case strings.HasSuffix(u.Path, "/v1"):
		return fmt.Errorf("url is written without /v1")
	}
	return nil
}

// factor reads parts per million, 0 where the file has none.
func (r *reader) factor(model, key string, d resource.Decimal) int64 {
	if d.Text == "" {
		return 0
	}
	const femtoPerPPM = 1_000_000_000
	a, err := money.ParseAmount(d.Text) // as exact as money, and six decimals are what a factor has
	femto, fits := a.Int64()
	if err != nil || !fits || femto%femtoPerPPM != 0 || femto <= 0 {
		r.fail(d.Pos, "model %q: %s must be above 0, with at most 6 decimals", model, key)
		return 0
	}
	return femto / femtoPerPPM
}

func (r *reader) model(s *modelSpec) *catalog.Model {
	r.named(s.Pos, s.Name)
	m := &catalog.Model{
		Name: s.Name, ServedAs: s.ServedAs, Engines: s.Engines, SizeClass: s.SizeClass, ContextTokens: s.ContextTokens,
		MaxOutputTokens: s.MaxOutput, DefaultMaxOutputTokens: s.DefaultMaxOutput, MessageTokens: s.MessageTokens, TemplateTokens: s.TemplateTokens,
		KVBytesPerToken: s.KVBytesPerToken, ImageTokens: s.ImageTokens, AudioTokens: s.AudioTokens, ContextShift: s.ContextShift, MaxConcurrent: s.MaxConcurrent, Family: s.Family, Revision: s.Revision,
		Quantisation: s.Quantisation, Tokenizer: s.Tokenizer,
	}
	m.Parameters = r.whole(s.Name, "parameters", s.Parameters)
	m.ActiveParameters = r.whole(s.Name, "active_parameters", s.ActiveParameters)
	m.InputFactorPPM = r.factor(s.Name, "tokens_per_byte", s.TokensPerByte)
	m.FlexBelowPPM = r.factor(s.Name, "flex_below", s.FlexBelow)
	if _, err := m.Complete(); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			r.fail(s.Pos, "model %q: %s", s.Name, line)
		}
	}
	return m
}

func (r *reader) whole(model, key string, d resource.Decimal) int64 {
	n, ok := d.Int64()
	if d.Text != "" && !ok {
		r.fail(d.Pos, "model %q: %s must be a whole number such as 8.03e9", model, key)
	}
	return n
}

// books reads price books. Several of one name are versions that are in force one after the other.
func (r *reader) books(nodes []resource.Node) {
	var all []*price.Book
	for _, n := range nodes {
		b, err := price.Parse(n)
		if err != nil {
			r.errs.Add(err)
			continue
		}
		all = append(all, b)
	}
	r.errs.Add(price.Check(all))
	slices.SortStableFunc(all, func(a, b *price.Book) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.From.Compare(b.From)) })
	for i := 0; i < len(all); {
		first, body := all[i], &bookBody{}
		for ; i < len(all) && all[i].Name == first.Name; i++ {
			version := ledger.ObjectRef{Kind: kindVersion, Name: all[i].Version}
			r.list = append(r.list, wanted{newItem(version, all[i]), all[i].Pos})
			body.Versions = append(body.Versions, all[i].Version)
		}
		r.add(kindBook, first.Name, first.Pos, body)
	}
}

var currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)

func (r *reader) account(s *accountSpec) *accountBody {
	fail := func(format string, args ...any) {
		r.fail(s.Pos, "account %q: %s", s.Path, fmt.Sprintf(format, args...))
	}
	if _, err := account.Parse(s.Path); err != nil {
		r.fail(s.Pos, "%v", err)
	}
	if s.Currency != "" && !currencyForm.MatchString(s.Currency) {
		fail("currency %q is not an ISO 4217 code such as EUR", s.Currency)
	}
	if s.Timezone != "" {
		if _, err := period.Zone(s.Timezone); err != nil {
			fail("%v", err)
		}
	}
	b := &accountBody{
		Currency: s.Currency, Zone: s.Timezone, Book: s.PriceBook, BillingAccount: s.BillingAccount, Seller: s.Seller, Contract: s.Contract,
		Labels: s.Labels, Models: s.Models, Regions: s.Regions, Isolation: s.Isolation, Suspended: s.Suspended, ShowAmounts: s.ShowAmounts, OnShort: s.OnShort,
		RequestsPerMinute: s.Rate.RequestsPerMinute, RequestBurst: s.Rate.Burst, TokensPerMinute: s.Rate.TokensPerMinute, TokenBurst: s.Rate.TokenBurst,
	}
	for _, f := range []struct {
		name        string
		rate, burst int64
	}{{"requests_per_minute", b.RequestsPerMinute, b.RequestBurst}, {"tokens_per_minute", b.TokensPerMinute, b.TokenBurst}} {
		switch {
		case f.rate < 0 || f.rate > maxRate:
			r.fail(s.Rate.Pos, "account %q: %s must be from 1 to %d", s.Path, f.name, maxRate)
		case f.rate == 0 && f.burst != 0:
			r.fail(s.Rate.Pos, "account %q: a burst without %s limits nothing", s.Path, f.name)
		case f.burst < 0 || f.burst > maxRate:
			r.fail(s.Rate.Pos, "account %q: the burst of %s must be from 1 to %d", s.Path, f.name, maxRate)
		}
	}
	if s.Rate.Pos != (resource.Pos{}) && b.RequestsPerMinute == 0 && b.TokensPerMinute == 0 {
		r.fail(s.Rate.Pos, "account %q: rate needs requests_per_minute or tokens_per_minute", s.Path)
	}
	if s.OnShort != "" && s.OnShort != onShortReject && s.OnShort != onShortClamp {
		fail("on_short %q is neither %s nor %s", s.OnShort, onShortReject, onShortClamp)
	}
	b.Limits = r.limits(fmt.Sprintf("account %q", s.Path), s.Limits)
	return b
}

// What becomes of a request whose maximum does not fit a limit: it is refused, or gets a smaller one.
const (
	onShortReject = "reject"
	onShortClamp  = "clamp"
)

// maxRate bounds what a rate lets pass in a minute, and at once.
const maxRate = 1_000_000_000

// MinSecret and MaxSecret bound the text of a key that is brought along, in bytes.
const (
	MinSecret = 16
	MaxSecret = 512
)

func (r *reader) key(s *keySpec) *keyBody {
	if err := checkKeyName(s.Name); err != nil {
		r.fail(s.Pos, "%v", err)
	}
	if _, err := account.Parse(s.Account); err != nil {
		r.fail(s.Pos, "key %q: %v", s.Name, err)
	}
	b := &keyBody{Account: account.Path(s.Account), Public: publicPrefix + s.Name, Revoked: s.Revoked}
	b.Limits = r.limits(fmt.Sprintf("key %q", s.Name), s.Limits)
	if secret := r.secret(s.Secret, MinSecret); secret != "" {
		b.Hash = r.secrets.Hash([]byte(secret))
	}
	return b
}

// stamp sets the times and states of a key that its file does not say.
func (b *keyBody) stamp(old *keyBody, now time.Time) {
	b.Created = now
	if old != nil && old.Hash == b.Hash {
		b.Created = old.Created
		b.Revoked = b.Revoked || old.Revoked
	}
}
