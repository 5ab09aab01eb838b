package tidy

// house is what this tree allows: the lists that the rules compare the source with. The tests of the rules have houses
// of their own.
type house struct {
	// order has every package of internal in groups: a package imports only what stands above it.
	order []group
	// mains has, for each command, the internal packages that it may import.
	mains map[string][]string
	// thirdParties has every module that is not ours or Go's, with the reason why it is worth having.
	thirdParties []thirdParty
	// clocks are the packages that may read the clock because making one is their task; everybody else is given the time.
	clocks []string
	// clockReaders are the others that read the clock, with the reason. The list only shrinks.
	clockReaders map[string]string
	// environments are the packages that may read environment variables.
	environments []string
	// noFloats are the packages in which an amount, a count or a time may pass; no float is near them.
	noFloats []string
	// rounders are the packages that may call Amount.Round.
	rounders []string
	// errorWriters are the files and packages that may answer with an HTTP error.
	errorWriters []string
	// long has the functions of more than 70 lines. The list only shrinks, and so does each number.
	long map[string]longFunction
	// unused has the exported identifiers that no other package uses, with the reason. The list only shrinks.
	unused map[string]string
}

// group is a run of packages of one nature.
type group struct {
	name     string
	pure     bool // no context, no clock, no I/O, no locks, no randomness
	packages []string
}

type thirdParty struct {
	module string
	in     []string // the packages that may import it; none means tests only
	reason string
}

type longFunction struct {
	lines  int
	reason string
}

// talea is this house.
var talea = house{
	order: []group{
		// The vocabulary: amounts, paths, refusals, counts, and how texts are read. Values only.
		{"words", true, []string{"money", "account", "refusal", "usage", "jsonscan", "resource", "period"}},
		// What is decided from values given: the same question has the same answer at any time on any machine.
		{"rules", true, []string{"price", "rating", "quote", "quota", "catalog"}},
		// What is kept: the log, the engines' state, the snapshot of the world, the stores.
		{"keepers", false, []string{"crash", "ledger", "engine", "meter", "fleet", "world", "identity", "tape", "rerate", "store/sqlite", "store/storetest"}},
		// Where bytes come in and go out.
		{"edges", false, []string{"export", "gateway", "admin", "sim", "cli"}},
		// The program, put together by hand, and the look at all of it.
		{"whole", false, []string{"app", "tidy"}},
	},
	mains: map[string][]string{
		"cmd/talea": {"cli", "app"},
	},
	thirdParties: []thirdParty{
		{"go.yaml.in/yaml/v3", []string{"resource"}, "resources are YAML; its node tree keeps lines, columns and the text of numbers"},
		{"zombiezen.com/go/sqlite", []string{"store/sqlite"}, "the embedded store: SQLite without cgo, prepared statements without allocations"},
		{"modernc.org/libc", []string{"store/sqlite"}, "SQLite's allocator, told to keep its memory"},
		{"github.com/spf13/cobra", []string{"cli", "app"}, "commands, flags, help and shell completion of the tool"},
		{"golang.org/x/term", []string{"cli", "app"}, "asks whether a person reads the output, and how wide their terminal is"},
		{"go.uber.org/goleak", nil, "finds goroutines that a test leaves behind"},
		{"github.com/anishathalye/porcupine", nil, "looks for an order of a concurrent history in which each answer is the rule's"},
		{"github.com/go-json-experiment/json", nil, "second oracle of the JSON scanner: JSON v2 semantics"},
	},
	clocks: []string{"app", "cli", "sim", "cmd/talea"},
	clockReaders: map[string]string{
		"gateway": "deadlines of connections are of the machine's clock; what is recorded comes from the injected one",
	},
	environments: []string{"app", "cli", "crash"},
	noFloats: []string{
		"money", "account", "usage", "resource", "period", "price", "rating", "quote", "quota", "ledger", "meter", "store/sqlite", "store/storetest", "gateway",
	},
	rounders:     []string{"money", "rating", "billing"},
	errorWriters: []string{"internal/gateway/error.go", "admin", "sim"},
	long:         map[string]longFunction{},
	unused: map[string]string{
		"sim.Clients.Tally": "what callers were told; tests compare it with the ledger",
		"ledger.ClockError": "part of what Open promises; the tool prints its text",
		"ledger.ErrSettled": "part of what Settle promises; the gateway settles once",
		"money.Rate.Scale":  "whole rates under multipliers: golden vectors G06, G29, G30",
	},
}
