// Command bench measures what a request costs the gateway: it starts an engine that generates nothing, Go's own reverse
// proxy as the yardstick, and talea with keys, limits on every level of the path, holds, durable settlement and full
// records; drives them in turn over the loopback interface from raw sockets, and compares processor time per request.
// It does not test what the answers say (internal/gateway does), but it fails where an answer is not whole or where the
// ledger's totals are not the engine's.
//
//	go run ./test/bench [-d 3s] [-rounds 5] [-c 32] [-only stream/32] [-talea FILE] [-against FILE] [-profile FILE]
//	go run ./test/bench -only hold,open
//
// The second line measures the ledger alone, in this process, on a real file: how long durable holds take, and how long a
// start takes behind a million requests. -against drives another build of talea in the same rounds.
//
// Processor time is the figure to trust on a shared machine: what the clock says moves with the neighbours. Rounds
// alternate, and ratios are taken within a round, so that what moves the machine moves both sides.
//
// # Invariants
//
//   - Every answer counted is a 200, complete, with the usage that the engine's books have for it.
//   - Requests, input and output tokens in the ledger equal the engine's books exactly, and `talea ledger check` agrees.
//   - Nothing but loopback addresses is dialled.
//
// Start reading at run.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] { // the processes that bench starts are bench itself
		case "stub":
			stubMain(os.Args[2:])
			return
		case "proxy":
			proxyMain(os.Args[2:])
			return
		}
	}
	var o options
	flag.DurationVar(&o.duration, "d", 3*time.Second, "time of each measurement")
	flag.DurationVar(&o.warm, "warm", 500*time.Millisecond, "time before each measurement that is not counted")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.IntVar(&o.connections, "c", 32, "connections")
	flag.StringVar(&o.only, "only", "chat,stream", "what to measure, by commas: chat or stream, with /connections for one number of them; hold; open")
	flag.IntVar(&o.records, "records", 1_000_000, "requests in the ledger that open opens and rerate rates again")
	flag.StringVar(&o.talea, "talea", "", "talea binary to measure (default: built from this tree)")
	flag.StringVar(&o.against, "against", "", "another talea binary, measured in the same rounds")
	flag.StringVar(&o.profile, "profile", "", "write a processor profile of talea under chat to `FILE`, and under streams to FILE.stream")
	flag.BoolVar(&o.verbose, "v", false, "print every round")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintln(os.Stderr, "bench: "+err.Error())
		os.Exit(1)
	}
}

type options struct {
	duration, warm      time.Duration
	rounds, connections int
	records             int
	only, talea         string
	against, profile    string
	verbose             bool
}

// wants reports whether -only names this: "stream" also names "stream/32".
func (o *options) wants(name string) bool {
	for one := range strings.SplitSeq(o.only, ",") {
		if name == one || strings.HasPrefix(name, one+"/") {
			return true
		}
	}
	return false
}

// ofWorkload names a workload at a number of connections.
func ofWorkload(w workload, connections int) string { return fmt.Sprintf("%s/%d", w.name, connections) }

// workloads are what is measured, in order.
var workloads = []workload{
	{name: "chat", body: `{"model":"m","messages":[{"role":"user","content":"How many notches are on the stick?"}],"max_tokens":100}`},
	{name: "long", body: `{"model":"m","messages":[{"role":"user","content":"How many notches are on the stick?"}]}`}, // asked for as a stream
	{name: "stream", stream: true, body: `{"model":"m","messages":[{"role":"user","content":"How many notches are on the stick?"}],"max_tokens":100,"stream":true,"stream_options":{"include_usage":true}}`},
}

// run measures what was asked for.
func run(o *options) error {
	known := false
	for name, measure := range map[string]func(*options) error{"hold": holds, "open": opens, "rerate": rerates} {
		if o.wants(name) {
			known = true
			if err := measure(o); err != nil {
				return err
			}
		}
	}
	for _, w := range workloads {
		if o.wants(ofWorkload(w, o.connections)) || o.wants(ofWorkload(w, 1)) {
			return requests(o)
		}
	}
	if !known {
		return fmt.Errorf("-only %s names nothing that is measured", o.only)
	}
	return nil
}

// requests starts everything, measures the workloads, checks the books, and prints the report.
func requests(o *options) (err error) {
	factory, err := startFactory(o)
	if err != nil {
		return err
	}
	defer factory.stop()
	if o.against != "" {
		other := *o
		other.talea, other.profile = o.against, ""
		before, err := startFactory(&other)
		if err != nil {
			return err
		}
		defer before.stop()
		defer func() {
			if _, wrong := before.settleUp(); err == nil {
				err = wrong
			}
		}()
		last := before.targets[2]
		last.name = "before"
		factory.targets = append(factory.targets, last)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		factory.stop()
		os.Exit(1)
	}()
	var results []result
	for _, w := range workloads {
		for _, connections := range []int{o.connections, 1} {
			if !o.wants(ofWorkload(w, connections)) {
				continue
			}
			r, err := measure(o, factory, w, connections)
			if err != nil {
				return err
			}
			results = append(results, r)
		}
	}
	if err := factory.takeProfiles(o); err != nil {
		return err
	}
	memory := factory.memory()
	stored, err := factory.settleUp()
	if err != nil {
		return err
	}
	report(os.Stdout, results, memory, stored)
	return nil
}

// sample is one measurement of one target.
type sample struct {
	requests, events int
	broken           int
	cpu              float64 // µs a request
	perSecond        float64
	p50, p99         float64 // µs
}

// result is all measurements of one workload, by target name, in rounds.
type result struct {
	workload    workload
	connections int
	samples     map[string][]sample
}

// measure drives the targets in turn.
func measure(o *options, f *factory, w workload, connections int) (result, error) {
	r := result{workload: w, connections: connections, samples: map[string][]sample{}}
	for round := range o.rounds {
		for _, t := range f.targets {
			if _, err := drive(t, w, connections, o.warm); err != nil {
				return r, err
			}
			before, err := cpuTime(t.pid)
			if err != nil {
				return r, err
			}
			done, err := drive(t, w, connections, o.duration)
			if err != nil {
				return r, err
			}
			after, err := cpuTime(t.pid)
			if err != nil {
				return r, err
			}
			s := done.sample()
			s.cpu = float64((after - before).Microseconds()) / float64(s.requests)
			r.samples[t.name] = append(r.samples[t.name], s)
			if o.verbose {
				fmt.Fprintf(os.Stderr, "%-6s %2d connections, round %d, %-6s %6.0f/s  %6.1f µs CPU  p50 %5.0f µs  p99 %6.0f µs\n",
					w.name, connections, round+1, t.name, s.perSecond, s.cpu, s.p50, s.p99)
			}
		}
	}
	return r, nil
}
