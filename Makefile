# pgsidecar's commands. `make help` lists them; CONTRIBUTING.md says more.

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME := 30s
STEPS    := 100000
SEED     :=
PGO      := off
SOAK     := 60s
READS    := 10m
FAILOVERS := 50
LINT     := go tool -modfile=internal/tools/go.mod golangci-lint

# Servers that children would take for their own (psql, pgx and libpq read them) have no place in the tests.
unexport PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE PGSERVICE PGOPTIONS PGSSLMODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help build run test vet lint fmt vuln fuzz reads bench bench-failover regress twins deps clean rollouts upgrades soak release

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/pgsidecar, a static binary; PGO=file guides it by a CPU profile
	@echo "building bin/pgsidecar $(VERSION)"
	@CGO_ENABLED=0 go build -trimpath -pgo=$(PGO) -ldflags '-s -w -X main.version=$(VERSION)' -o bin/pgsidecar ./cmd/pgsidecar

release: ## Build the commit for all platforms into dist/, twice: both have to be the same bytes
	@go run ./internal/release

run: build ## Run it in front of a throwaway primary and standby (or of DATABASE_URL); Ctrl-C ends all
	@test -n "$$DATABASE_URL" || scripts/deps.sh server
	@go build -o .local/bin/localdev ./internal/localdev
	@exec .local/bin/localdev

test: deps vet lint ## Get what the tests need, then vet, lint and run all tests with the race detector
	@echo "running the tests"
	@go test -race -timeout 40m ./proxy ./... # the longest first: it is what the others are waited for
	@echo "checking deploy/ (the first time what knows Kubernetes is built, which takes a few minutes)"
	@cd deploy && go vet ./... && go test ./...

vet: # part of test
	@echo "vetting"
	@go vet ./...

lint: ## Run the linter (built once, which takes two minutes)
	@echo "linting (the first time the linter is built, which takes two minutes)"
	@$(LINT) run

fmt: ## Format the sources
	@$(LINT) fmt

vuln: ## Look for known vulnerabilities (needs the network)
	@go tool -modfile=internal/tools/go.mod govulncheck ./...

rollouts: ## Restart pods a hundred times under load, as the kubelet does: nothing may fail (a quarter of an hour)
	@PGSIDECAR_ROLLOUTS=100 go test -race -count 1 -timeout 60m -run TestRollout ./cmd/pgsidecar

upgrades: ## Replace the process twenty times under load, clients and all: nothing may fail (two minutes)
	@PGSIDECAR_UPGRADES=20 go test -race -count 1 -timeout 30m -run TestSuccession_pgbench ./cmd/pgsidecar

soak: ## Let pgbench's hundred clients share ten servers, race detector on: nothing may fail (six minutes; SOAK=60s each)
	@PGSIDECAR_SOAK=$(SOAK) go test -race -count 1 -timeout 60m -v -run TestSoak ./cmd/pgsidecar

reads: ## Read on standbys that lag for READS (10m), race detector off: nobody may read what is stale
	@PGSIDECAR_READS=$(READS) go test -count 1 -timeout 12h -v -run TestReads_standbysThatLag ./cmd/pgsidecar

fuzz: ## Run every fuzz target for FUZZTIME (30s) each
	@scripts/fuzz.sh $(FUZZTIME)

bench: build ## Compare with PgBouncer and a direct connection; BENCH="-quick" passes flags
	@go run ./bench $(BENCH)

bench-failover: ## Lose FAILOVERS (50) primaries of 15 and of 18 under load, beside PgBouncer (PGBOUNCER=path) and libpq's list of hosts (an hour)
	@PGSIDECAR_FAILOVERS=$(FAILOVERS) go test -count 1 -timeout 4h -v -run TestFailovers ./cmd/pgsidecar

regress: build ## Run PostgreSQL's own tests through the proxy (half an hour); REGRESS="-mode session" passes flags
	@go run ./internal/regress $(REGRESS)

twins: ## Let clients of the proxy and of a direct connection do the same at random, STEPS (100000) steps for each version; SEED repeats
	@seed=$(or $(SEED),$$(date +%s)); echo "$(STEPS) steps, SEED=$$seed"; \
		PGSIDECAR_TWIN_STEPS=$(STEPS) PGSIDECAR_TWIN_SEED=$$seed go test -count 1 -timeout 6h -run TestTwins ./proxy

deps: ## Get PostgreSQL 15, 17 and 18 and the drivers that are tested, where they can be had
	@scripts/deps.sh

clean: ## Remove what was built and fetched (bin/, dist/ and .local/)
	@rm -rf bin dist .local
