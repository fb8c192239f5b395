# make help prints the targets.
GO         ?= go
PREFIX     ?= /usr/local
DESTDIR    ?=
UNITDIR    ?= /lib/systemd/system
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS    := -s -w -X sixfour/internal/version.release=$(VERSION)
LINT       := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
PLATFORMS  := amd64 arm64 arm riscv64 s390x
FUZZTIME   ?= 60s
BENCHTIME  ?= 1s
export CGO_ENABLED = 0

.DEFAULT_GOAL := help

help: ## print this
	@awk -F ': .*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/sixfourd and bin/sixfourctl, static
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

cross: ## build for every platform (linux on amd64, arm64, arm, riscv64, s390x), into dist/
	@for p in $(PLATFORMS); do \
		echo "linux/$$p"; \
		GOARCH=$$p $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/$$p/ ./cmd/... && \
		GOARCH=$$p $(GO) vet ./cmd/... || exit 1; \
	done

demo: build ## two namespaces, two daemons, traffic, and what was measured
	bin/sixfourctl demo

test: ## every test but the interop ones; needs root for namespaces and TUN devices
	$(GO) vet ./...
	$(GO) test -count=1 ./...

check: test race cross interop ## all tests, as CI runs them

race: ## the same tests with the race detector; needs a C compiler
	CGO_ENABLED=1 $(GO) test -count=1 -race ./...

interop: ## against the Linux kernel's own tunnels, in an emulated machine; fetches what it needs
	internal/interop/fetch
	$(GO) test -count=1 -tags interop -timeout 20m -v ./internal/interop

bench: ## benchmarks: layers, and packets through a real pair of namespaces
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) ./bench/

bench-peers: ## sixfourd beside other tunnels, in turns: a table, and bench/peers.svg; installs them; takes ten minutes
	bench/peers/fetch
	$(GO) run ./bench/peers

fuzz: ## run each fuzz target for FUZZTIME (60s)
	@grep -r --include=*_test.go -o '^func Fuzz[A-Za-z0-9]*' . | sed 's|/[^/]*:func | |' | sort | while read -r dir target; do \
		echo "$$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir || exit 1; \
	done

lint: ## gofmt, go vet and golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "not formatted: run gofmt -w ."; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags interop ./internal/interop/...
	$(GO) run $(LINT) run

install: build ## install programs, unit and sample configuration (DESTDIR, PREFIX, UNITDIR)
	install -D -m 0755 bin/sixfourd $(DESTDIR)$(PREFIX)/sbin/sixfourd
	install -D -m 0755 bin/sixfourctl $(DESTDIR)$(PREFIX)/bin/sixfourctl
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/local/sbin/sixfourd|$(PREFIX)/sbin/sixfourd|' cmd/sixfourd/dist/sixfourd.service > $(DESTDIR)$(UNITDIR)/sixfourd.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/sixfourd.service
	install -D -m 0644 cmd/sixfourd/dist/sixfour.toml $(DESTDIR)$(PREFIX)/share/doc/sixfour/sixfour.toml
	test -e $(DESTDIR)/etc/sixfour.toml || install -D -m 0600 cmd/sixfourd/dist/sixfour.toml $(DESTDIR)/etc/sixfour.toml

clean: ## remove what was built
	rm -rf bin dist

.PHONY: help build cross demo test check race interop bench bench-peers fuzz lint install clean
