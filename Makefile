# The front door. The build itself is CMakeLists.txt and CMakePresets.json; every build lies in out/<preset>.
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)
# Most tests ask for two CPUs each (cmake/tests.cmake).
export CTEST_PARALLEL_LEVEL ?= $(shell nproc)
ifneq ($(shell command -v ninja),)
export CMAKE_GENERATOR ?= Ninja
endif
PREFIX ?= /usr/local
build = cmake --preset $(1) && cmake --build --preset $(1)
# Without the long tests, unless LONG=1 or tests are asked for by name; once: those that every build has the same of.
left_out = $(if $(LONG)$(findstring -R,$(ARGS)),none,long)$(if $(filter release,$(1)),,|once)
suite = $(call build,$(1)) && $(2) ctest --preset $(1) --no-label-summary -LE '^($(left_out))$$' $(ARGS)
# ThreadSanitizer of gcc 12 and clang 14 cannot place its shadow where the kernel scatters mappings very widely.
no_aslr = $(shell setarch -R true 2>/dev/null && echo setarch -R)
sources = $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cc')

# What `make test-all` makes, one after the other. A choice of tests by clang, with ucontext and more is among `machines`.
everything = explore-deeper faults fuzz soak test-long asan tsan hard machines

.PHONY: all release debug demo test bench guard explore asan tsan hard ucontext clang aarch64 fire fmt tidy install coverage
.PHONY: test-debug test-all $(everything) clean help
all: release
release debug: ## build
	$(call build,$@)
demo: ## build, and show what it can do
	tools/deps.sh build demo
	$(call build,release)
	examples/demo.sh out/release
test: ## build, and run the test suite (ARGS='-R name' picks tests; LONG=1: the long ones, too)
	tools/deps.sh build test
	$(call suite,release)
test-long:
	$(MAKE) test LONG=1
test-debug: ## the suite with internal checks
	tools/deps.sh build test
	$(call suite,debug)
test-all: ## everything that tests: all builds, all tests, deeper searches; an hour and a half on 2 CPUs
	tools/everything.sh '$(MAKE)' $(everything)
bench: ## build, and measure beside the peers
	tools/deps.sh build bench
	$(call build,release)
	BUILD_DIR=out/release bench/run $(ARGS)
guard: ## build, and compare the instructions that hot paths take with their budgets (ARGS=--record: set these)
	$(call build,release)
	BUILD_DIR=out/release bench/guard $(ARGS)
explore: ## the protocols of the core in every order, and planted faults (ARGS='--deeper 1', '--random 1000000 --seed 7')
	tools/deps.sh build
	test/explore/run.py $(ARGS)
	test/explore/run.py --mutations
explore-deeper: ## the same in 300 000 orders at random for each case, other ones each time
	tools/deps.sh build
	test/explore/run.py --random 300000 --seed $$$$
fuzz: ## planted faults, which fuzz programs must find; then these, FUZZ_SECONDS each (default 60), by libFuzzer if it is there
	tools/deps.sh build fuzz
	test/fuzz/planted.py
	test/fuzz/run.sh $${FUZZ_SECONDS:-60} $(ARGS)
faults: ## every call of the library fails once, in turn (ARGS='scene:kind:error:n' repeats a case)
	tools/deps.sh build test
	$(call build,release)
	out/release/test/faults/faults --jobs $(CMAKE_BUILD_PARALLEL_LEVEL) $(ARGS)
hard: export COIR_HARD_SEED ?= $(shell date +%s) # told by the tests that fail; one that hangs cannot
asan hard ucontext clang: ## the suite with ASan and UBSan; with tiny limits; with ucontext instead of assembly; by clang
	tools/deps.sh build test
	$(call suite,$@)
tsan: ## the suite with ThreadSanitizer
	tools/deps.sh build test
	$(call suite,tsan,$(no_aslr))
aarch64: ## the suite for 64-bit ARM, by emulation
	tools/deps.sh build aarch64
	$(call suite,aarch64)
coverage: ## the suite, counting lines; lists those of src/ that no test ran, by file
	tools/deps.sh build test coverage
	tools/coverage.sh $(ARGS)
machines: ## other compilers' flags, C libraries, processors, CPUs and kernels; about 25 minutes (ARGS: which; -l lists them)
	tools/deps.sh build test machines
	test/machines.sh $(ARGS)
soak: ## everything at once, for SOAK_SECONDS (default a minute); 10 000 connections to examples/httpd; 10^8 jobs and more
	tools/deps.sh build demo test
	$(call build,release)
	out/release/test/soak
	out/release/examples/soak_httpd out/release/examples/httpd 60 10000
	out/release/test/stress_job $$$$ 60 100000000 2> out/release/stress_job.log || (tail out/release/stress_job.log; false)
fire: ## preemption in the middle of everything, for COIR_FIRE_SECONDS (default an hour)
	tools/deps.sh build test
	$(call build,release)
	test/fire.sh all out/release/test $${COIR_FIRE_SECONDS:-3600}
fmt: ## format the C sources
	clang-format -i $(sources)
tidy: ## check the style; with clang-tidy where it is installed
	tools/tidy.sh
	$(call build,release)
	! command -v clang-tidy > /dev/null || clang-tidy --quiet -p out/release $(wildcard src/*.c src/os/*.c)
install: release ## install to PREFIX (default /usr/local); DESTDIR is honoured
	cmake --install out/release --prefix $(PREFIX)
clean: ## remove every build
	rm -rf out
help: ## this list
	@sed -n 's/^\([a-z0-9 -]*\):[^#]*## /\1\t/p' Makefile | expand -t 24
