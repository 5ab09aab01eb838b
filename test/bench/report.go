package main

import (
	"fmt"
	"io"
	"slices"
)

// spread is the median of some figures and the range that they lie in.
type spread struct{ median, least, most float64 }

func spreadOf(list []float64) spread {
	slices.Sort(list)
	n := len(list)
	return spread{(list[n/2] + list[(n-1)/2]) / 2, list[0], list[n-1]}
}

// of collects one figure of the samples of a target.
func (r *result) of(target string, figure func(sample) float64) []float64 {
	var list []float64
	for _, s := range r.samples[target] {
		list = append(list, figure(s))
	}
	return list
}

// against combines each round's figure of two targets.
func (r *result) against(a, b string, figure func(sample) float64, combine func(a, b float64) float64) spread {
	x, y := r.of(a, figure), r.of(b, figure)
	for i := range x {
		x[i] = combine(x[i], y[i])
	}
	return spreadOf(x)
}

func cpu(s sample) float64 { return s.cpu }
func p50(s sample) float64 { return s.p50 }
func p99(s sample) float64 { return s.p99 }

func minus(a, b float64) float64 { return a - b }
func over(a, b float64) float64  { return a / b }

// report prints everything.
func report(w io.Writer, results []result, memory map[string][2]int64, stored storage) {
	for i := range results {
		r := &results[i]
		reportOne(w, r)
	}
	fmt.Fprintf(w, "resident memory: talea %.1f MiB (peak %.1f), proxy %.1f MiB (peak %.1f)\n",
		mib(memory["talea"][0]), mib(memory["talea"][1]), mib(memory["proxy"][0]), mib(memory["proxy"][1]))
	fmt.Fprintf(w, "stored: %d requests in %d bytes, %.0f bytes a request\n", stored.requests, stored.bytes, float64(stored.bytes)/float64(stored.requests))
	fmt.Fprintf(w, "books: %d requests, %d input and %d output tokens, the same in the ledger and at the engine; ledger check passed\n",
		stored.requests, stored.requests*inputTokens, stored.requests*outputTokens)
}

func reportOne(w io.Writer, r *result) {
	many := "connections"
	if r.connections == 1 {
		many = "connection"
	}
	fmt.Fprintf(w, "%s, %d %s\n", r.workload.name, r.connections, many)
	fmt.Fprintf(w, "  %-8s %28s %24s %10s %10s\n", "", "CPU µs/request (range)", "requests/s (range)", "p50 µs", "p99 µs")
	for _, t := range []string{"direct", "proxy", "before", "talea"} {
		if len(r.samples[t]) == 0 {
			continue
		}
		c, n := spreadOf(r.of(t, cpu)), spreadOf(r.of(t, func(s sample) float64 { return s.perSecond }))
		fmt.Fprintf(w, "  %-8s %10.1f (%6.1f…%6.1f) %9.0f (%5.0f…%5.0f) %10.0f %10.0f\n", t,
			c.median, c.least, c.most, n.median, n.least, n.most, spreadOf(r.of(t, p50)).median, spreadOf(r.of(t, p99)).median)
	}
	ratio := r.against("talea", "proxy", cpu, over)
	fmt.Fprintf(w, "  CPU talea/proxy %.2f (%.2f…%.2f)", ratio.median, ratio.least, ratio.most)
	if len(r.samples["before"]) > 0 {
		was, now := r.against("before", "proxy", cpu, over), r.against("talea", "before", cpu, over)
		fmt.Fprintf(w, "; before/proxy %.2f; talea/before %.3f (%.3f…%.3f)", was.median, now.median, now.least, now.most)
	}
	if r.workload.stream {
		each := r.of("talea", func(s sample) float64 { return s.cpu * float64(s.requests) / float64(s.events) })
		fmt.Fprintf(w, "; CPU per stream event %.1f µs", spreadOf(each).median)
	}
	broken := 0
	for _, s := range r.samples["proxy"] {
		broken += s.broken
	}
	if broken > 0 {
		fmt.Fprintf(w, "; the proxy broke off %d answers", broken)
	}
	fmt.Fprintf(w, "\n  added to direct: p50 %+.0f µs, p99 %+.0f µs; to proxy: p50 %+.0f µs, p99 %+.0f µs\n\n",
		r.against("talea", "direct", p50, minus).median, r.against("talea", "direct", p99, minus).median,
		r.against("talea", "proxy", p50, minus).median, r.against("talea", "proxy", p99, minus).median)
}

func mib(kib int64) float64 { return float64(kib) / 1024 }
