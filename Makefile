# Every target runs from a clean clone on a machine with Go, Node, git, make and apt: what it needs, it builds or installs first.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.ONESHELL:
.DEFAULT_GOAL := help

# One set of build flags for the product, its tests and the linter, so that all three share one build cache.
export GOFLAGS := $(strip $(shell go env GOFLAGS) -trimpath)
export CGO_ENABLED := 0
# The tests run this binary, and find grpcurl among the tools.
export TCODER_BIN := $(CURDIR)/bin/tcoder
export PATH := $(CURDIR)/.tmp/bin:$(PATH)

# The packages where goroutines live: `make test-race` and `make ci` test them under the race detector. (Not local/s3d: it
# wraps another project's server, and compiling that for the detector takes longer than all of ours.)
CONCURRENT := ^github.com/tcoder-dev/tcoder/((services|worker|sdk/go|internal/(redisstore|memstore|machine|celltest|memhttp))(/|$$)|internal/local$$)
# What `make generate` writes. `make ci` refuses a change in any of it, untracked files included.
GENERATED := gen docs/state-machine.md internal/redisstore/lua/include/transitions.lua
PROTOVALIDATE_VERSION := v1.2.2
FUZZTIME ?= 10s
# How many broken files of each container `make fuzz-media` makes, and from which seed on.
MEDIA_MUTATIONS ?= 2000
MEDIA_SEED ?= 1
MODEL_CASES ?= 300
# Of a package: the end-to-end tests take several minutes on two processors.
TEST_TIMEOUT := 20m

BUF := .tmp/bin/buf
GRPCURL := .tmp/bin/grpcurl
GOLANGCI := .tmp/bin/golangci-lint
NODE_MODULES := node_modules/.package-lock.json
BULLMQ := bench/peer/bullmq/node_modules/.package-lock.json
SCHEMAS := .deps/protovalidate-$(PROTOVALIDATE_VERSION).stamp

##@ Use

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9%-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: deps build ## Start everything, transcode a real clip to an adaptive stream, check it, stop
	scripts/demo

.PHONY: up
up: deps build ## Start the whole stack on this machine and keep it running (Ctrl-C stops it)
	exec bin/tcoder up

.PHONY: build
build: ## Build bin/tcoder
	go build -o bin/tcoder ./cmd/tcoder

.PHONY: deps
deps: ## Install the missing programs that running needs: FFmpeg, Redis ... (apt)
	@scripts/install-deps run

.PHONY: deps-dev
deps-dev: ## Install the missing programs that the tests and linters need besides
	@scripts/install-deps run dev

##@ Develop

.PHONY: all
all: generate build lint test ## Generate, build, lint and test

.PHONY: generate
generate: $(BUF) $(SCHEMAS) $(NODE_MODULES) ## Write the generated code: gen/, Lua includes, docs/state-machine.md
	$(BUF) generate
	go generate ./...

.PHONY: lint
lint: deps-dev $(BUF) $(SCHEMAS) $(GOLANGCI) $(NODE_MODULES) ## Lint Go, protos, TypeScript and shell scripts
	$(BUF) lint proto
	$(BUF) format --diff --exit-code proto
	$(GOLANGCI) run
	npm run lint --workspaces --if-present
	$(MAKE) lint-deploy
	shellcheck .ci/run $$(grep -rlE '^#!.*\b(bash|sh)$$' scripts)

.PHONY: lint-deploy
lint-deploy: ## Check what only Docker and Fly can run: deploy/, .env.example, the names of settings in docs/deploy.md
	go run -C tools/deploylint . $(CURDIR)

.PHONY: fmt
fmt: $(BUF) $(GOLANGCI) ## Format Go and protos
	$(GOLANGCI) fmt
	$(BUF) format -w proto

.PHONY: breaking
breaking: $(BUF) $(SCHEMAS) ## Refuse a change of the API that breaks clients of the last release
	$(BUF) breaking proto --against proto/image.binpb

# Run it when a release is tagged, and only then: the image is what `make breaking` holds the next release to.
.PHONY: image
image: $(BUF) $(SCHEMAS) ## Save the API of a release as proto/image.binpb
	$(BUF) build proto --exclude-source-info -o proto/image.binpb

##@ Test

# With TEST_RACE=1 the concurrent packages run under the race detector instead of without it.
.PHONY: test
test: test-setup ## Run all tests: Go and TypeScript (TEST_RACE=1: with the race detector where goroutines live)
ifeq ($(TEST_RACE),1)
	packages=$$(go list ./...)
	CGO_ENABLED=1 go test -race -count=1 -timeout $(TEST_TIMEOUT) $$(grep -E '$(CONCURRENT)' <<<"$$packages")
	go test -count=1 -timeout $(TEST_TIMEOUT) $$(grep -vE '$(CONCURRENT)' <<<"$$packages")
else
	go test -count=1 -timeout $(TEST_TIMEOUT) ./...
endif
	npm test --workspaces --if-present

.PHONY: test-race
test-race: test-setup ## Run the Go tests of the concurrent packages under the race detector
	packages=$$(go list ./...)
	CGO_ENABLED=1 go test -race -count=1 -timeout $(TEST_TIMEOUT) $$(grep -E '$(CONCURRENT)' <<<"$$packages")

.PHONY: test-setup
test-setup: deps-dev build $(GRPCURL) $(NODE_MODULES)

.PHONY: e2e
e2e: test-setup ## Run the end-to-end tests alone
	go test -count=1 -v -timeout $(TEST_TIMEOUT) ./e2e/...

.PHONY: test-model
test-model: deps-dev ## Compare the scripts with the model for MODEL_CASES (300) long cases; MODEL_SEED repeats a failure
	go test -count=1 -v -timeout 30m -run '^TestModel$$' ./internal/redisstore -rapid.steps=60 \
		-rapid.checks=$(MODEL_CASES) $(if $(MODEL_SEED),-rapid.seed=$(MODEL_SEED))

.PHONY: test-crash
test-crash: test-setup ## Kill, pause and cut off every part of a cell under thousands of jobs (TCODER_CRASH_SEED=n: again)
	TCODER_CRASH=long go test -count=1 -v -timeout 295s -run '^TestCrash$$' ./e2e/crash

.PHONY: test-fleet
test-fleet: test-setup ## Take a pool on a faked Fly from none to its limit and back, with each fault by itself and all at once
	TCODER_FLEET=long go test -count=1 -v -timeout 290s -parallel 3 -run '^TestFleet' ./e2e

# A class alone: make test-matrix MATRIX=prores
.PHONY: test-matrix
test-matrix: test-setup ## Make every preset, whole and in chunks, of every class of input, check what comes, and print it as a table
	npm run build -w sdk/ts -- --tests
	TCODER_MATRIX=full go test -count=1 -v -timeout 20m -parallel 3 -run '^TestMatrix$$/$(if $(MATRIX),^($(MATRIX))$$)' ./e2e | \
		grep -vE '^=== |^ +--- PASS'

.PHONY: fuzz
# Inputs aren't made smaller: by default that takes up to a minute for each that reaches new code, and no other is tried meanwhile.
fuzz: ## Run every fuzz target for FUZZTIME (10s)
	go list ./... | while read -r pkg; do
		for target in $$(go test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$pkg"
		done
	done

.PHONY: fuzz-media
fuzz-media: deps-dev ## Treat MEDIA_MUTATIONS (2000) broken files of each container like uploads, and print how they end
	go test -count=1 -timeout 0 -v -run '^TestMutations$$' ./worker/ffmpeg -mutations $(MEDIA_MUTATIONS) -mutation-seed $(MEDIA_SEED) | \
		grep -vE '^=== |^ +--- PASS'

.PHONY: bench
bench: deps build $(BULLMQ) ## Run all benchmarks: ratios to named peers, as a table and in .tcoder/bench.json
	go run ./bench -media "$$(scripts/fetch-bench-media)"

.PHONY: bench-scheduler
bench-scheduler: deps build $(BULLMQ) ## Run the benchmarks of the scheduler beside asynq and BullMQ
	go run ./bench scheduler

.PHONY: bench-pool
bench-pool: ## Simulate the pool in fake time, and hold it to what no policy can do better than
	go run ./bench pool

bench-%: deps build ## Run one group of benchmarks, like bench-transcode
	go run ./bench -media "$$(scripts/fetch-bench-media)" $*

.PHONY: ci
ci: check-generated lint breaking ## What CI runs: generate check, lint, breaking, tests
	$(MAKE) test TEST_RACE=1

.PHONY: check-generated
check-generated: generate
	@changed=$$(git status --porcelain --untracked-files=all -- $(GENERATED))
	if [[ -n "$$changed" ]]; then
		printf 'Generated files differ from what is committed. Run "make generate" and commit:\n%s\n' "$$changed" >&2
		exit 1
	fi

.PHONY: clean
clean: ## Remove what make built (not .tcoder, where the data of `make up` lies)
	rm -rf bin out .tmp .deps node_modules gen/ts/node_modules sdk/ts/node_modules sdk/ts/dist bench/peer/bullmq/node_modules

# ---- tools and generated inputs, made once and kept until what they come from changes

$(BUF): tools/go.mod
	go build -C tools -o $(CURDIR)/$@ github.com/bufbuild/buf/cmd/buf

$(GRPCURL): tools/go.mod
	go build -C tools -o $(CURDIR)/$@ github.com/fullstorydev/grpcurl/cmd/grpcurl

$(GOLANGCI): tools/lint/go.mod
	go build -C tools/lint -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(NODE_MODULES): package-lock.json package.json gen/ts/package.json sdk/ts/package.json
	npm ci
	touch $@

$(BULLMQ): bench/peer/bullmq/package-lock.json bench/peer/bullmq/package.json
	cd bench/peer/bullmq
	npm ci
	touch $(notdir $(@D))/$(@F)

# protovalidate's schema comes out of its Go module, so generating needs no schema registry.
$(SCHEMAS):
	rm -rf .deps
	mkdir -p .deps
	dir=$$(go mod download -json github.com/bufbuild/protovalidate@$(PROTOVALIDATE_VERSION) | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	cp -r "$$dir/proto/protovalidate" .deps/protovalidate
	chmod -R u+w .deps
	touch $@
