# Everything a developer or a user of brownout types. `make help` explains.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BIN      = bin/brownout
export CGO_ENABLED = 0
# sudo often hides the usual place of Go.
export PATH := $(PATH):/usr/local/go/bin

.PHONY: help build demo test unit vmtest bench bench-kv bugs mutants fuzz container lint fmt ci clean

help: ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 10

build: ## build bin/brownout, one static binary
	@$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN) ./cmd/brownout

demo: build ## build what it needs, run the guided scenario, print the verdict (root)
	@$(BIN) demo

test: ## all tests; as root also those that need the kernel, without root it says what it skipped
	@GO="$(GO)" .ci/test

unit: ## the quick part, without root and kernel
	@$(GO) test -short ./...

vmtest: ## tests on a stock kernel in QEMU: netem, device mapper, cgroup v2 alone (apt; root the first time)
	@GO="$(GO)" .ci/vmtest

bench: build ## benchmarks: ratios within one run, then goals beside what was measured (root)
	@GO="$(GO)" .ci/bench

bench-kv: build ## the key-value server beside etcd (built from the module proxy) and Redis, if it is installed (root)
	@cd internal/bench && $(GO) build -mod=mod -trimpath -o ../../bin/kvbench .
	@bin/kvbench -brownout $(BIN) $(KVBENCH)

bugs: ## find every bug planted in kvserver; nothing without it, BUGRUNS times (default 1) (root, minutes)
	@BROWNOUT_BUGS=$(or $(BUGRUNS),1) $(GO) test ./cmd/brownout -run 'TestPlantedBugs' -count=1 -v -timeout 5h

mutants: ## change the checker in one place after the other: a test must notice each (half an hour)
	@BROWNOUT_MUTANTS=1 $(GO) test ./checker -run TestMutantsAreKilled -v -count=1 -timeout 5h

fuzz: ## every fuzz target for FUZZTIME each (default 20s), and a million random histories
	@GO="$(GO)" .ci/fuzz

container: build ## the demo in a privileged container, exit 5 with the reason in others (root, podman)
	@.ci/container

lint: ## gofumpt, go vet, staticcheck, tidy modules, other systems still compile
	@GO="$(GO)" .ci/lint

fmt: ## format all files as lint wants them
	@$(GO) tool gofumpt -w $$(git ls-files '*.go')

ci: ## what .ci/run calls: lint, the README's test command, then containers and a virtual machine
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory container
	@$(MAKE) --no-print-directory vmtest

clean: ## remove what was built; `brownout clean` is for what a dead run left on the host
	@rm -rf bin
