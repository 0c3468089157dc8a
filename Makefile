# pmxcfs: build, run, test. `make` alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# A Go that is new enough, wherever it is.
export PATH := $(CURDIR)/contrib/toolchain:$(PATH)
export GOFLAGS := -buildvcs=false
export CGO_ENABLED := 1

DESTDIR ?=
PREFIX  ?= /usr
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# What building and running need, and what only the tests need. The program that runs
# needs nothing but C libraries.
DEB_BUILD := gcc libc6-dev pkgconf git ca-certificates \
	libcpg-dev libvotequorum-dev libcmap-dev libcfg-dev libcorosync-common-dev libqb-dev librrd-dev
DEB_TEST  := corosync openssh-client openssh-server openssl rrdtool rrdcached iproute2 procps util-linux prometheus groff-base fuse3 sqlite3
# What building the Debian package of this machine's release needs on top: the rest of
# debian/control's.
DEB_DEB   := build-essential dpkg-dev debhelper lintian
# And roots of Debian releases, to build in and to boot hosts of.
DEB_HOSTS := systemd-container mmdebstrap debian-archive-keyring dpkg-dev

INSTALL := contrib/toolchain/install-packages
# Debian's Go, however old, is needed where there is none that is new enough.
GO_PACKAGE = $(if $(shell debian/find-go 1.26),,golang-go)

.PHONY: help deps deps-build build run stop test lint bench fuzz install deb debs deps-deb deb-reproducible deps-package test-package test-package-short clean
help:
	@echo 'make deps      install what building, running and testing need (Debian 13 or 12, as root)'
	@echo 'make build     build bin/pmxcfs and bin/pvecm'
	@echo 'make run       start a single node below ./run, in the background'
	@echo 'make stop      stop it'
	@echo 'make test      run every check and test, real corosync clusters included'
	@echo 'make test-package   build the Debian packages for 13 and 12, twice, and try them on hosts with systemd'
	@echo 'make test-package-short   build them once and try what matters most'
	@echo 'make bench     measure the daemon beside its floors'
	@echo 'make fuzz      fuzz each decoder for a while (FUZZTIME=30s)'
	@echo 'make install   install below $$(DESTDIR)$$(PREFIX)'
	@echo 'make deb       build the Debian packages of this release into dist/'
	@echo 'make debs      build those of Debian 13 and 12, in roots of theirs, into dist/trixie and dist/bookworm'
	@echo 'make deb-reproducible   as make debs, each twice, apart, and compare the bytes'
	@echo 'make clean     remove what was built'

deps: deps-build
	@$(INSTALL) 'the tests' $(DEB_TEST)

deps-build:
	@$(INSTALL) 'building and running' $(DEB_BUILD) $(GO_PACKAGE)
	@contrib/toolchain/get

build: deps-build
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

lint: deps-build
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted" >&2; exit 1; }
	go mod verify >/dev/null
	go vet ./...
	go run $(STATICCHECK) ./...

# With the race detector everything; without it, which is ten times as fast, the
# random histories of the simulated group in their full number. -p 3: many
# packages start clusters of their own, and wait for them half of the time.
test: deps lint build
	PMXCFS_REQUIRE_LAB=1 go test -race -p 3 -timeout 25m ./...
	go test -count=1 -timeout 10m ./dfsm/dfsmtest ./memdb/dcdb -run 'Random|Seeds'

FUZZTIME ?= 30s
fuzz: deps
	@for pkg in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

bench: deps build
	go run ./contrib/bench -pmxcfs bin/pmxcfs $(BENCHFLAGS)

install: build
	install -D -m 0755 bin/pmxcfs $(DESTDIR)$(PREFIX)/bin/pmxcfs
	ln -sf pmxcfs $(DESTDIR)$(PREFIX)/bin/create_pmxcfs_db
	install -D -m 0755 bin/pvecm $(DESTDIR)$(PREFIX)/bin/pvecm
	install -D -m 0644 contrib/systemd/pmxcfs.catalog $(DESTDIR)$(PREFIX)/lib/systemd/catalog/pmxcfs.catalog

# DEB_VERSION=1:0.4 builds as if that were the version.
DEB_VERSION ?=
SUITES := trixie bookworm
deps-deb: deps-build
	@$(INSTALL) 'building packages' $(DEB_DEB)

deb: deps-deb
	@mkdir -p dist
	@rm -f dist/*.deb dist/*.changes dist/*.buildinfo
	debian/make-deb $(if $(DEB_VERSION),-v $(DEB_VERSION)) dist
	@lintian --fail-on error,warning dist/*.changes

deps-package: deps
	@$(INSTALL) 'roots of Debian releases' $(DEB_HOSTS)
	@go mod download

# The releases at the same time: most of it is one compiler after the other.
debs deb-reproducible: deps-package
	@pids=(); for s in $(SUITES); do \
		PMXCFS_TWICE=$(if $(filter deb-reproducible,$@),1) debian/build-in $$s dist/$$s & pids+=($$!); done; \
	for p in "$${pids[@]}"; do wait "$$p"; done

# Tests that boot hosts mostly wait, so more of them run at a time than there are processors.
ON_HOSTS := PMXCFS_TEST_HOSTS=1 go test -count=1 -p 1 -parallel 4 -timeout 60m

# For a release. Nothing is skipped here; docs/testing.md says how it works.
test-package: deb-reproducible build
	$(ON_HOSTS) ./contrib/vmlab/... ./cmd/pmxcfs/test/packages ./cmd/pvecm/test/hosts

# For every change: each package is installed, used and removed once.
test-package-short: debs build
	$(ON_HOSTS) -short ./cmd/pmxcfs/test/packages

clean:
	rm -rf bin dist
