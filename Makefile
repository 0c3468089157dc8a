# pmxcfs: build, run, test. `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

export PATH := /usr/local/go/bin:$(PATH)
export GOFLAGS := -buildvcs=false
export CGO_ENABLED := 1

DESTDIR ?=
PREFIX  ?= /usr
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

GO_VERSION  := 1.26.8
GO_SHA256   := 30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What building needs, what running needs, and what only the tests need.
DEB_BUILD := gcc libc6-dev pkg-config git ca-certificates curl unzip \
	libcpg-dev libvotequorum-dev libcmap-dev libcfg-dev libcorosync-common-dev libqb-dev librrd-dev
DEB_RUN   := fuse3 sqlite3
DEB_TEST  := corosync openssh-client openssl rrdtool rrdcached iproute2 procps util-linux prometheus groff-base
# What building the Debian package needs on top: the rest of debian/control's.
DEB_DEB   := build-essential dpkg-dev debhelper pkgconf lintian
# And trying it on hosts with systemd.
DEB_HOSTS := systemd-container mmdebstrap debian-archive-keyring

# Installs those of the Debian packages $(1) that are missing.
define install_packages
	@missing=(); for p in $(1); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		[ "$$(id -u)" = 0 ] || { echo "these Debian packages are missing, and installing them needs root: $${missing[*]}" >&2; exit 1; }; \
		echo "installing: $${missing[*]}"; \
		apt-get update -q; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$${missing[@]}"; \
	fi
endef

.PHONY: help deps deps-build build run stop test lint bench fuzz install deb deps-deb deb-reproducible deps-package test-package clean
help:
	@echo 'make deps      install what building, running and testing need (Debian 12, as root)'
	@echo 'make build     build bin/pmxcfs and bin/pvecm'
	@echo 'make run       start a single node below ./run, in the background'
	@echo 'make stop      stop it'
	@echo 'make test      run every check and test, real corosync clusters included'
	@echo 'make test-package   build the Debian package and try it on hosts with systemd'
	@echo 'make bench     measure the daemon beside its floors'
	@echo 'make fuzz      fuzz each decoder for a while (FUZZTIME=30s)'
	@echo 'make install   install below $$(DESTDIR)$$(PREFIX)'
	@echo 'make deb       build the Debian package into dist/'
	@echo 'make deb-reproducible   build it twice, apart, and compare the bytes'
	@echo 'make clean     remove what was built'

# The toolchain comes as a Go module: where modules can be had, so can it.
deps: deps-build
	$(call install_packages,$(DEB_RUN) $(DEB_TEST))

deps-build:
	$(call install_packages,$(DEB_BUILD))
	@have=$$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null || true); \
	if [ "$$(printf '%s\n' "go1.26" "$${have:-none}" | sort -V | head -n 1)" != go1.26 ] || [ -z "$$have" ]; then \
		[ "$$(id -u)" = 0 ] || { echo "Go $(GO_VERSION) is missing, and installing it in /usr/local/go needs root" >&2; exit 1; }; \
		[ ! -e /usr/local/go ] || { echo "/usr/local/go holds $${have:-no working Go}, and Go 1.26 is needed: move it away, and run this again" >&2; exit 1; }; \
		echo "installing Go $(GO_VERSION) in /usr/local/go"; \
		tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
		curl -fsSL -o $$tmp/go.zip https://proxy.golang.org/golang.org/toolchain/@v/v0.0.1-go$(GO_VERSION).linux-amd64.zip; \
		echo "$(GO_SHA256)  $$tmp/go.zip" | sha256sum -c --quiet; \
		unzip -q $$tmp/go.zip -d $$tmp; \
		mv "$$tmp/golang.org/toolchain@v0.0.1-go$(GO_VERSION).linux-amd64" /usr/local/go; \
		chmod -R u+w,a+rX /usr/local/go; chmod +x /usr/local/go/bin/* /usr/local/go/pkg/tool/*/*; \
	fi

build: deps
	@go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/pmxcfs ./cmd/pmxcfs
	@go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/pvecm ./cmd/pvecm

RUN := $(CURDIR)/run
run: build
	@if [ -s $(RUN)/pmxcfs.pid ] && kill -0 "$$(cat $(RUN)/pmxcfs.pid)" 2>/dev/null; then \
		echo "it is running already (pid $$(cat $(RUN)/pmxcfs.pid))"; \
	else \
		mkdir -p $(RUN); \
		bin/pmxcfs --local --root $(RUN) --mount-point $(RUN)/pve --database $(RUN)/config.db \
			--lock-file $(RUN)/lock --run-dir $(RUN)/state --pid-file $(RUN)/pmxcfs.pid \
			--node-name $${NODE_NAME:-node1} --node-address 127.0.0.1 --log-file $(RUN)/pmxcfs.log; \
	fi
	@echo; \
	echo 'A single node is running. Everything of it is below $(RUN):'; \
	echo '    the tree      $(RUN)/pve          (write to it:  echo hello > run/pve/hello)'; \
	echo '    the database  $(RUN)/config.db'; \
	echo '    the log       $(RUN)/pmxcfs.log'; \
	echo 'Look at it with:  bin/pmxcfs status --socket run/state/pmxcfs.sock'; \
	echo 'Stop it with:     make stop'

stop:
	@if [ ! -s $(RUN)/pmxcfs.pid ]; then echo 'it is not running'; exit 0; fi; \
	pid=$$(cat $(RUN)/pmxcfs.pid); kill $$pid; \
	for i in $$(seq 100); do kill -0 $$pid 2>/dev/null || { echo 'stopped'; exit 0; }; sleep 0.1; done; \
	echo "pid $$pid did not stop within 10 s" >&2; exit 1

lint: deps
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted" >&2; exit 1; }
	go mod verify >/dev/null
	go vet ./...
	go run $(STATICCHECK) ./...

# With the race detector everything; without it, which is ten times as fast, the
# random histories of the simulated group in their full number. -p 2: many
# packages start clusters of their own.
test: lint build
	PMXCFS_REQUIRE_LAB=1 go test -race -p 2 -timeout 14m ./...
	go test -count=1 -timeout 10m ./dfsm/dfsmtest ./memdb/dcdb -run 'Random|Seeds'

FUZZTIME ?= 30s
fuzz: deps
	@for pkg in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

bench: build
	go run ./contrib/bench -pmxcfs bin/pmxcfs $(BENCHFLAGS)

install: build
	install -D -m 0755 bin/pmxcfs $(DESTDIR)$(PREFIX)/bin/pmxcfs
	ln -sf pmxcfs $(DESTDIR)$(PREFIX)/bin/create_pmxcfs_db
	install -D -m 0644 contrib/systemd/pmxcfs.catalog $(DESTDIR)$(PREFIX)/lib/systemd/catalog/pmxcfs.catalog

# DEB_VERSION=1:0.4 builds as if that were the version.
DEB_VERSION ?=
deps-deb: deps-build
	$(call install_packages,$(DEB_DEB))

deb: deps-deb
	@rm -rf dist
	debian/make-deb $(if $(DEB_VERSION),-v $(DEB_VERSION)) dist
	@lintian --fail-on error,warning dist/*.changes

# The second build has everything else: directory, home, caches, time zone, language, umask.
deb-reproducible: deps-deb
	@debian/reproducible

deps-package: deps deps-deb
	$(call install_packages,$(DEB_HOSTS))

# Nothing is skipped here; docs/testing.md says how it works.
test-package: deps-package deb deb-reproducible
	PMXCFS_TEST_HOSTS=1 go test -count=1 -p 1 -timeout 20m ./contrib/vmlab/... ./cmd/pmxcfs/test/packages

clean:
	rm -rf bin dist
