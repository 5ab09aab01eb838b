// Package histories runs the whole gateway, simulated engines, their clients, the clock and the disk in one process and
// in simulated time, through random histories with crashes, and compares what comes of each with books that are not the
// ledger's. It has nothing but tests:
//
//   - history_test.go: the histories. One is replayed with -seed.
//   - disk_test.go, wire_test.go, process_test.go, client_test.go: what they are made of.
//   - order_test.go: concurrent histories of the ledger alone, checked against the sequential rule of a limit.
//
// `go test ./test/histories` runs a dozen; `make sim SIM=10000` runs many and writes docs/proof/sim.txt.
package histories
