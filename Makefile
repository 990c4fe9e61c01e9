# The front door: `make` builds build/atoll, `make demo` shows it, `make test` proves it. The real build is Meson's.
SHELL := /bin/bash
PREFIX ?= /usr/local
DESTDIR ?=
RELEASE := build/release
MESON_RELEASE := -Dbuildtype=debugoptimized -Dtests=false -Donnx=enabled -Dllama=enabled

.DEFAULT_GOAL := all
.PHONY: all deps demo test test-gpu bench bench-gateway bench-gateway-report bench-growth bench-report check check-format check-layers check-promises format fuzz install clean distclean help

all: deps ## build build/atoll (optimised, with symbols)
	@want="$(CURDIR) $(PREFIX)"; [ -f $(RELEASE)/build.ninja ] && [ "$$(cat $(RELEASE)/.configured 2> /dev/null)" = "$$want" ] || { \
	  echo "configure $(RELEASE)"; rm -rf $(RELEASE); mkdir -p build; \
	  meson setup $(RELEASE) $(MESON_RELEASE) --prefix "$(PREFIX)" > build/setup.log 2>&1 && echo "$$want" > $(RELEASE)/.configured || { cat build/setup.log; rm -rf $(RELEASE); exit 1; }; }
	@if [ -t 1 ]; then ninja -C $(RELEASE) $(if $(V),-v); else ninja -C $(RELEASE) $(if $(V),-v,--quiet) > build/ninja.log 2>&1 || { cat build/ninja.log; exit 1; }; fi
	@if [ -x $(RELEASE)/atoll ]; then ln -f $(RELEASE)/atoll build/atoll && echo "built build/atoll"; \
	 else echo "built the libraries; this tree has no src/apps yet"; fi

deps: ## install the Debian packages that are missing and fetch third-party files
	@tools/install-deps build
	@tools/fetch-third-party onnxruntime llama

demo: all ## run the main job on this machine, start to end
	@tools/install-deps demo
	@tools/fetch-third-party kubectl
	@tools/demo

test: ## build and run every test; ends with the summary
	@tools/run-tests

test-gpu: all ## shares on this machine's GPU; skipped, with the reason, where there is none
	@tools/install-deps test
	@tools/fetch-third-party kubectl
	@cd tests && { [ -d node_modules ] || npm ci --no-audit --no-fund --silent; }
	@ATOLL_BIN=$${ATOLL_BIN:-$(CURDIR)/build/atoll} node --test --test-reporter spec --test-timeout 600000 tests/gpu/gpu.test.mjs

bench: all ## print the figures beside the peers'
	@tools/install-deps bench
	@bench/run

bench-growth: all ## what 1,000 to 100,000 objects cost (minutes)
	@tools/install-deps bench
	@bench/run growth

bench-report: ## make docs/control-plane-figures.md of the last bench and bench-growth
	@bench/report

bench-gateway: all ## CPU per request of the gateway beside HAProxy, nginx and the floor, at 64 connections
	@tools/install-deps bench
	@ATOLL_BUILD=$(RELEASE) PYTHONDONTWRITEBYTECODE=1 bench/gateway --ratios

bench-gateway-report: all ## all figures of the gateway, into docs/gateway-figures.md (about four minutes)
	@tools/install-deps bench
	@ATOLL_BUILD=$(RELEASE) PYTHONDONTWRITEBYTECODE=1 bench/gateway_report

check: check-format check-layers check-promises ## style, layers and docs/SECURITY.md only

check-format:
	@tools/check-style

check-layers:
	@tools/check-layers

check-promises:
	@tools/check-promises

format: ## rewrite the C files in the house format
	@git ls-files -z 'src/*.c' 'src/*.h' 'tests/*.c' 'tests/*.h' 'bench/*.c' 'bench/*.h' 'tools/*.c' | xargs -0 -r clang-format-14 -i

fuzz: ## run every fuzzer for ATOLL_FUZZ_SECONDS (default 60) each
	@ATOLL_FUZZ_SECONDS=$${ATOLL_FUZZ_SECONDS:-60} tools/run-tests fuzz

install: all ## install under PREFIX (default /usr/local), DESTDIR honoured
	install -D -m 755 $(RELEASE)/atoll "$(DESTDIR)$(PREFIX)/bin/atoll"
	install -D -m 644 third_party/onnxruntime/lib/libonnxruntime.so.1 "$(DESTDIR)$(PREFIX)/lib/atoll/libonnxruntime.so.1"
	install -d "$(DESTDIR)$(PREFIX)/lib/atoll/llama"
	install -m 644 third_party/llama/lib/*.so "$(DESTDIR)$(PREFIX)/lib/atoll/llama/"
	install -d "$(DESTDIR)$(PREFIX)/share/man/man1" "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" \
	  "$(DESTDIR)$(PREFIX)/share/zsh/site-functions" "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d"
	$(RELEASE)/atoll help --man | gzip -9n > "$(DESTDIR)$(PREFIX)/share/man/man1/atoll.1.gz"
	$(RELEASE)/atoll completion bash > "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/atoll"
	$(RELEASE)/atoll completion zsh > "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_atoll"
	$(RELEASE)/atoll completion fish > "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/atoll.fish"
	@for unit in packaging/*.service; do [ -e "$$unit" ] || continue; \
	  install -D -m 644 "$$unit" "$(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename "$$unit")"; done

clean: ## remove what was built (third_party stays)
	rm -rf build

distclean: clean ## remove what was fetched too
	rm -rf third_party tests/node_modules

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
