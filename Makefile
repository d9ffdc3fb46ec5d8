# A thin layer over CMakePresets.json: the commands that a reader of README.md needs.
#
#   make demo       build, then watch locks being waited for and a deadlock being named
#   make test       build with warnings as errors, run every test
#   make test-exports   judge exports and report page by the programs that they are for (npm packages, Chromium)
#   make bench      measure what tracing costs
#   make lint       clang-format on all, clang-tidy on the product's sources, or on FILES='a.cpp b.cpp'
#   make sanitize   the tests again under the address, undefined-behaviour and thread sanitizers
#   make fuzz       build the fuzz programs
#
# Each installs what is missing first (cmake/install-dependencies); a second run installs and rebuilds nothing.

JOBS ?= $(shell nproc)
install := cmake/install-dependencies
build := cmake --build --parallel $(JOBS) --preset

.PHONY: demo test test-exports bench lint sanitize fuzz
demo:
	@$(install) build
	@cmake --preset release --log-level=WARNING -D PLANLOOP_TESTS=OFF -D PLANLOOP_BENCH=OFF
	@$(build) release -- --no-print-directory
	@cli/demo/run build/release/cli/planloop

test:
	@$(install) build test
	@cmake --preset dev --log-level=WARNING
	@$(build) dev -- --no-print-directory
	@ctest --preset dev --parallel $(JOBS)

test-exports:
	@$(install) build test exports
	@cmake --preset dev --log-level=WARNING
	@$(build) dev --target planloop planloop_preload lock_actor -- --no-print-directory
	@tests/exports/run build/dev

bench:
	@$(install) build bench
	@cmake --preset release --log-level=WARNING -D PLANLOOP_TESTS=OFF -D PLANLOOP_BENCH=ON
	@$(build) release -- --no-print-directory
	@bench/run build/release

lint:
	@$(install) build test lint
	@cmake --preset dev --log-level=WARNING
	@cmake/lint build/dev $(FILES)

sanitize:
	@$(install) build test
	@for preset in asan tsan; do \
	    cmake --preset $$preset --log-level=WARNING && \
	    $(build) $$preset -- --no-print-directory && \
	    ctest --preset $$preset --parallel $(JOBS) || exit; \
	done

fuzz:
	@$(install) build lint
	@cmake --preset fuzz --log-level=WARNING
	@$(build) fuzz -- --no-print-directory
