# make help prints the targets.
GO         ?= go
PREFIX     ?= /usr/local
DESTDIR    ?=
UNITDIR    ?= /lib/systemd/system
# A release is a tag vX.Y.Z; between releases versions are in the order of commits.
TAG        := $(shell git describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null)
VERSION    ?= $(if $(TAG),$(TAG:v%=%),0.0.0+git$(shell git show -s --format=%cd.%h --abbrev=12 --date=format:%Y%m%d%H%M HEAD 2>/dev/null || echo unknown))
COMMIT     := $(shell git describe --always --abbrev=40 --dirty --exclude='*' 2>/dev/null)
DATE       := $(shell TZ=UTC git show -s --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ HEAD 2>/dev/null)
LDFLAGS    := -s -w $(foreach v,release=$(VERSION) commit=$(COMMIT) date=$(DATE),-X sixfour/internal/version.$v)
# What archives say of when files changed: the commit's time, so that two builds are alike.
export SOURCE_DATE_EPOCH ?= $(shell git show -s --format=%ct HEAD 2>/dev/null || echo 0)
LINT       := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
PLATFORMS  := amd64 arm64 arm riscv64 s390x
# The last release whose dependencies the module proxy has whole.
NFPM       := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0
FORMATS    ?= deb rpm
BIN        ?= bin
DIST       ?= dist
CONTAINER  ?= $(firstword $(notdir $(shell command -v podman docker)))
FUZZTIME   ?= 60s
BENCHTIME  ?= 1s
export CGO_ENABLED = 0
# Everything is built in the same way, so that tests and releases share what was compiled.
export GOFLAGS := $(strip $(filter-out -trimpath,$(GOFLAGS)) -trimpath)

.DEFAULT_GOAL := help

help: ## print this
	@awk -F ': .*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/sixfourd and bin/sixfourctl, static
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

cross: ## build for every platform (linux on amd64, arm64, arm, riscv64, s390x), into dist/
	@for p in $(PLATFORMS); do \
		echo "linux/$$p"; \
		GOARCH=$$p $(GO) build -ldflags '$(LDFLAGS)' -o $(DIST)/$$p/ ./cmd/... && \
		GOARCH=$$p $(GO) vet ./cmd/... || exit 1; \
	done

demo: build ## two namespaces, two daemons, traffic, and what was measured
	bin/sixfourctl demo

test: ## every test but the interop ones; needs root for namespaces and TUN devices
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 20m -p $(PACKAGES) ./...

check: test ## all tests, as CI runs them
	$(MAKE) -j2 --output-sync race interop cross

# Those in which no code of the daemon runs beside another, or the same as in other tests.
NO_RACE    := packaging|differential|manual|imports|importing|peers|doctor|configfile|config|config/[a-z]+|address|decode
NO_RACE    := $(NO_RACE)|encap/[a-z0-9]+/node|encap/(header|framing|fragment|nd|lisp|seal|mape|teredo|sixbed4|sixa44)

# How many packages are tested at a time: on two processors three, because tests wait for most of
# their time.
PACKAGES   := $(shell expr $$(nproc) + 1)

race: ## the same tests with the race detector, where there can be races; needs a C compiler
	CGO_ENABLED=1 $(GO) test -count=1 -timeout 20m -p $(PACKAGES) -race $$($(GO) list ./... | grep -vE '/($(NO_RACE))$$')

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

docs: ## write the pages of the manual that are made from the program
	$(GO) run ./internal/manual -reference docs/reference.md

install: build install-files ## install programs, manual pages, completions, unit and sample configuration (DESTDIR, PREFIX, UNITDIR)

# What BIN has, as it lies on a machine. The configuration of one that has it already stays.
install-files:
	install -D -m 0755 $(BIN)/sixfourd $(DESTDIR)$(PREFIX)/sbin/sixfourd
	install -D -m 0755 $(BIN)/sixfourctl $(DESTDIR)$(PREFIX)/bin/sixfourctl
	$(GO) run ./internal/manual $(DESTDIR)$(PREFIX)/share
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|/usr/local/|$(PREFIX)/|g' cmd/sixfourd/dist/sixfourd.service > $(DESTDIR)$(UNITDIR)/sixfourd.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/sixfourd.service
	install -D -m 0644 cmd/sixfourd/dist/sixfour.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/sixfour.conf
	install -d $(DESTDIR)$(PREFIX)/share/doc/sixfour
	install -m 0644 README.md LICENSE cmd/sixfourd/dist/sixfour.toml cmd/sixfourd/dist/sixfour-* cmd/sixfourd/dist/sixfourd-*.conf $(DESTDIR)$(PREFIX)/share/doc/sixfour/
	cp -r docs $(DESTDIR)$(PREFIX)/share/doc/sixfour/
	test -e $(DESTDIR)/etc/sixfour.toml || install -D -m 0640 cmd/sixfourd/dist/sixfour.toml $(DESTDIR)/etc/sixfour.toml

package: ## .deb and .rpm for every platform, into dist/ (PLATFORMS, FORMATS, VERSION)
	@for p in $(PLATFORMS); do \
		GOARCH=$$p $(GO) build -ldflags '$(LDFLAGS)' -o $(DIST)/$$p/ ./cmd/... || exit 1; \
		rm -rf $(DIST)/$$p/root; \
		$(MAKE) -s install-files BIN=$(DIST)/$$p DESTDIR=$(DIST)/$$p/root PREFIX=/usr UNITDIR=/usr/lib/systemd/system || exit 1; \
		for f in $(FORMATS); do \
			ROOT=$(DIST)/$$p/root ARCH=$$p VERSION='$(VERSION)' $(GO) run $(NFPM) package -f cmd/sixfourd/dist/nfpm.yaml -p $$f -t $(DIST)/ || exit 1; \
		done; \
	done

container: build ## an image with the two programs and nothing else (CONTAINER: podman or docker)
	$(CONTAINER) build -t sixfour:$(subst +,-,$(VERSION)) -f cmd/sixfourd/dist/Containerfile .

clean: ## remove what was built
	rm -rf bin $(DIST)

.PHONY: help build cross demo test check race interop bench bench-peers fuzz lint docs install install-files package container clean
