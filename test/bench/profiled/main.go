// Command profiled is talea that also lets itself be profiled, on the loopback address in TALEA_BENCH_PPROF. The product
// has no such port; bench builds this in its place when it is asked for a profile.
//
// # Invariants
//
//   - But for the port of the profiler it is what cmd/talea is.
//
// Start reading at main.
package main

import (
	"fmt"
	"net/http"
	_ "net/http/pprof" // on the default mux, which nothing else here serves
	"os"

	"talea/internal/app"
)

func main() {
	if at := os.Getenv("TALEA_BENCH_PPROF"); at != "" {
		go func() { fmt.Fprintln(os.Stderr, "profiler:", http.ListenAndServe(at, nil)) }()
	}
	os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr))
}
