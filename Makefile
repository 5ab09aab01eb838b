# What a person runs by hand. `make check` is what CI runs.
.PHONY: build test lint fuzz bench kill sim bugs soak realengine disk check

build: ## bin/talea
	go build -trimpath -o bin/talea ./cmd/talea

test: ## the quick, hermetic tests: Go alone
	go test ./...

lint: ## vet, formatting, and docs/proof.md as the tests say
	@test -z "$$(gofmt -l cmd internal test)" || { gofmt -l cmd internal test; echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	go run ./test/proof -check

fuzz: ## every fuzz target for FUZZTIME (default 20s)
	./test/fuzz.sh $(or $(FUZZTIME),20s)

bench: ## CPU, latency, memory and bytes per request, against a bare reverse proxy in the same run
	go run ./test/bench $(BENCH)

sim: ## SIM (default 10000) histories of the whole gateway in simulated time; the counts go to docs/proof/sim.txt
	@mkdir -p docs/proof
	go test ./test/histories -run TestHistories -timeout 0 -histories $(or $(SIM),10000) -first $(or $(FIRST),1) -twice 50 -report $(CURDIR)/docs/proof/sim.txt

bugs: ## known bugs planted one at a time, each of which the tests must find; the list goes to docs/proof/bugs.txt
	@mkdir -p docs/proof
	go test ./test/bugs -timeout 0 -plant -report $(CURDIR)/docs/proof/bugs.txt

kill: ## KILLS (default 200) times kill -9 of the real program under load, judged from outside; counts to docs/proof/kill.txt
	go test -count=1 -timeout 60m -v ./test/kill -run TestKill -kills $(or $(KILLS),200) -report $(CURDIR)/docs/proof/kill.txt

soak: ## SOAK (default 30m) of steady mixed load, every request compared with what the engine made; counts to docs/proof/soak.txt
	go test -count=1 -timeout 0 -v ./test/soak -for $(or $(SOAK),30m) -report $(CURDIR)/docs/proof/soak.txt

realengine: ## a real llama.cpp behind the gateway, with OpenAI's clients for Go and Node (needs apt and npm)
	cd test/realengine && go test -count=1 -v ./...

check: ## all that CI runs
	.ci/run

disk: ## the real program on a disk with faults (needs /dev/fuse and the right to mount)
	cd test/disk && go test -count=1 -v ./...
