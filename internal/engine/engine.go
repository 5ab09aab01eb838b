// Package engine knows what inference engines speak: for each dialect the members a request may have, how usage is
// asked for and how it is told, normalised to token parts in which null is not 0; and it has the client that asks them.
// It does not read streams or whole answers (meter), does not decide what is refused (gateway) and does not price (rating).
//
// # Invariants
//
//   - Every member of OpenAI's chat, completions and embeddings requests is listed in every dialect, Neutral or Bound.
//   - No member that multiplies or extends output, picks another tenant's resources or changes routing is Neutral.
//   - A number that is no count (a fraction, a string, a negative, 10^15 and more) refuses the usage it stands in.
//   - What an engine does not report is unknown, never 0; a part is never larger than its whole.
//
// To add a dialect: one file with one Dialect value, a row in Dialects, transcripts under testdata that the one suite of
// package meter runs over.
//
// Start reading at Dialect, then vllm.go; for the wire, at Client.Do.
package engine

// Endpoint is a metered route of the data port.
type Endpoint uint8

// The metered routes.
const (
	Chat Endpoint = iota
	Completions
	Embeddings
	numEndpoints
)

var endpoints = [numEndpoints]struct{ name, path string }{
	{"chat", "/v1/chat/completions"}, {"completions", "/v1/completions"}, {"embeddings", "/v1/embeddings"},
}

// String returns the name in records: "chat", "completions", "embeddings".
func (e Endpoint) String() string { return endpoints[e].name }

// Path returns the path at an engine and at the data port.
func (e Endpoint) Path() string { return endpoints[e].path }

// Running says how a dialect is asked for running usage, the usage so far in the chunks of a stream.
type Running uint8

// Ways to running usage.
const (
	NoRunning      Running = iota // it has none, and what looks like it is not to be believed
	GivenRunning                  // it cannot be asked for it, but what it gives is read
	OptionRunning                 // stream_options.continuous_usage_stats: true; a usage member in each chunk
	TimingsRunning                // timings_per_token: true; a timings member in each chunk
)

// Dialect is what one kind of engine speaks. All of it is data; the methods only look things up. Dialects are shared:
// nobody changes one.
type Dialect struct {
	Name    string
	Running Running

	// PerChoice: a stream tells usage once for each choice, and a whole answer tells that of the first choice only. A
	// request for several choices must be streamed by the engine, whatever the client asked (meter.Gather).
	PerChoice bool

	// FinalOnFinish: usage on the chunk with the finish reason is final usage.
	FinalOnFinish bool

	// ClosesStreams: the engine closes the connection behind a stream without having said so. A client that kept it would
	// lose its next request on it: streams are asked for with "Connection: close".
	ClosesStreams bool

	// BoundAsAsked: engines behind this dialect know different members for the output bound, and ignore the others. What the
	// client used is what it knows of its engine, and goes before BoundMember.
	BoundAsAsked bool

	// TokenizePath is the route that counts the tokens of a prompt without generating, "" where there is none. It takes
	// conversations itself, or else the text that the route TemplatePath makes of them.
	TokenizePath, TemplatePath string

	SaltMember   string // request member that separates the prefix caches of tenants, "" where there is none
	TimingMember string // member of answers with the times of the request, "" where there is none

	boundMember [numEndpoints]string
	members     [numEndpoints]table
	usage       []field
	timing      []field
	load        loadNames
}

// Dialects are all dialects.
var Dialects = []*Dialect{&vllm, &llamacpp, &ollama, &openai}

// ByName finds a dialect by the name in resource files.
func ByName(name string) (*Dialect, bool) {
	for _, d := range Dialects {
		if d.Name == name {
			return d, true
		}
	}
	return nil, false
}

// Member looks up a member of a request by its unescaped name. It does not allocate.
func (d *Dialect) Member(e Endpoint, name []byte) Member { return d.members[e][string(name)] }

// BoundMember is the one member that carries the output bound to the engine, "" where an endpoint has no output. Every
// other member with the rule OutputMax must be left out, or the engine may obey that one.
func (d *Dialect) BoundMember(e Endpoint) string { return d.boundMember[e] }

// LeastOutput is the smallest output bound, in tokens per choice, that engines obey: llama.cpp makes one token when it
// is asked for 0, Ollama makes as many as it likes.
const LeastOutput = 1
