# pixelrefer: builds the Lua module pixelrefer.core and runs everything else. `make help` lists the targets.

CC ?= cc
LUAJIT ?= luajit
BUSTED ?= busted
BUILD ?= build
PREFIX ?= /usr/local
LUADIR ?= $(PREFIX)/share/lua/5.1
LIBDIR ?= $(PREFIX)/lib/lua/5.1
BINDIR ?= $(PREFIX)/bin

# ---- the module -------------------------------------------------------------------------------------------------

PACKAGES = luajit libavformat libavcodec libavutil libswscale libutf8proc jansson zlib stb
LINKED = $(filter-out luajit stb,$(PACKAGES))
WARNINGS = -Wall -Wextra -Wshadow -Wconversion
CFLAGS ?= -O2 -g
# Both ask pkg-config once, at their first use, so that targets that build nothing need nothing.
PACKAGE_CFLAGS = $(eval PACKAGE_CFLAGS := $(shell pkg-config --cflags $(PACKAGES)))$(PACKAGE_CFLAGS)
PACKAGE_LIBS = $(eval PACKAGE_LIBS := $(shell pkg-config --libs $(LINKED)))$(PACKAGE_LIBS)
ALL_CPPFLAGS = -Icsrc $(PACKAGE_CFLAGS) -D_GNU_SOURCE $(CPPFLAGS)
ALL_CFLAGS = -std=c11 -ffp-contract=off -fPIC -fvisibility=hidden -funwind-tables -pthread $(WARNINGS) $(CFLAGS)
LIBS = $(PACKAGE_LIBS) -lm -pthread

SOURCES := $(sort $(shell find csrc -name '*.c'))
OBJECTS := $(SOURCES:%.c=$(BUILD)/obj/%.o)
MODULE := $(BUILD)/pixelrefer/core.so

# The documentation of the functions in C, which the prompt's :doc reads.
DOCUMENTED := $(BUILD)/pixelrefer/core.doc

all: $(MODULE) $(DOCUMENTED) ## build the module (the default)
	@:

# The module stays mapped until the process ends: its worker threads sleep in it.
$(MODULE): $(OBJECTS)
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(CC) -shared -Wl,-z,nodelete $(LDFLAGS) -o $@ $^ $(LIBS)

$(DOCUMENTED): $(filter csrc/lua/%,$(SOURCES))
	@mkdir -p $(@D)
	@sed -n '/^\/\*\*\*/,/\*\//p' $^ > $@

$(BUILD)/obj/%.o: %.c | $(BUILD)/packages
	@mkdir -p $(@D)
	@echo "CC $<"
	@$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Instruction-set variants of the float kernels: compiled for their set, chosen at run time.
$(BUILD)/obj/csrc/cpu/%_avx2.o: ALL_CFLAGS += -mavx2 -mfma -mf16c
$(BUILD)/obj/csrc/cpu/%_avx512.o: ALL_CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c

# The generic vectors of the scalar set make gcc's debug information for them slow to work out.
$(BUILD)/obj/csrc/cpu/kernels_%.o: ALL_CFLAGS += -fno-var-tracking-assignments

# What the build needs is there: looked at once.
$(BUILD)/packages: Makefile
	@command -v pkg-config >/dev/null || { echo "pkg-config is missing: 'make deps' installs what is needed" >&2; exit 1; }
	@missing=; for package in $(PACKAGES); do pkg-config --exists $$package || missing="$$missing $$package"; done; \
	test -z "$$missing" || { echo "not found by pkg-config:$$missing ('make deps' installs what is needed)" >&2; exit 1; }
	@mkdir -p $(@D) && touch $@

# ---- running ----------------------------------------------------------------------------------------------------

# Lua finds the checkout's own modules first. Both are exported for the tests, the second for the command that they run.
export BUILD
export PIXELREFER_BUILD = $(abspath $(BUILD))
ifdef SEED
export SEED
endif
run_lua = LUA_PATH="lua/?.lua;lua/?/init.lua;spec/?.lua;;" LUA_CPATH="$(BUILD)/?.so;;" $(LUAJIT)

deps: ## install what building, testing and checking need (Debian: apt-get as root or by sudo)
	@.ci/deps build test check

demo: ## set up, build, and ask about a picture and a video
	@.ci/deps build
	@$(MAKE) --no-print-directory all
	@$(run_lua) examples/demo.lua $(BUILD)/demo

test: ## set up, build, and run the tests (SEED=n repeats a run)
	@.ci/deps build test
	@$(MAKE) --no-print-directory all
	@$(BUSTED)

check: ## everything a change must pass: tests, lint, sanitizers, instruction sets, fuzz smoke, docs
	@.ci/deps build test check
	@$(run_lua) spec/check.lua

check-long: ## the same with every test in every lane
	@.ci/deps build test check
	@$(run_lua) spec/check.lua long

parity: all ## compare with golden tensors (GOLDEN=dir DEVICE=name CASE=name)
	@$(run_lua) spec/parity/run.lua $(if $(GOLDEN),--golden $(GOLDEN)) $(if $(DEVICE),--device $(DEVICE)) $(if $(CASE),--case $(CASE))

# The small models are asked about scenes that nobody has seen; another SEED draws others.
accuracy: all ## count right answers of small models on fresh scenes (SEED=n MODELS="dir dir")
	@$(run_lua) examples/shapes/accuracy.lua $(or $(MODELS),$(wildcard examples/models/*)) $(if $(SEED),--seed $(SEED))

bench: all ## measure speed at true size, as ratios
	@$(run_lua) spec/bench/true_size.lua

lint: all ## rings, symbols, lengths, documentation, luacheck
	@$(run_lua) spec/lint/run.lua $(BUILD)

format: ## lay out the C files as .clang-format says
	@clang-format -i $(shell find csrc spec -name '*.[ch]')

docs: ## build the API pages into build/docs
	@rm -rf build/binding build/docs && mkdir -p build/binding
	@cp $$(grep -l '@module' csrc/lua/*.c) build/binding
	@ldoc -q -c docs/config.ld -d $(abspath build/docs) . >build/docs.log 2>&1 || { cat build/docs.log; exit 1; }
	@echo "written: build/docs/index.html"

fuzz: ## fuzz one parser, or all of them: FUZZ=name TIME=seconds
	@spec/fuzz/run.sh "$(or $(FUZZ),all)" "$(or $(TIME),60)"

# A fuzz target is one file and everything but the binding; spec/fuzz/run.sh sets compiler and flags.
$(BUILD)/fuzz_%: spec/fuzz/fuzz_%.c $(filter-out $(BUILD)/obj/csrc/lua/%,$(OBJECTS))
	@echo "LD $@"
	@$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

install: all ## install below PREFIX (DESTDIR is honoured)
	@install -d $(DESTDIR)$(LIBDIR)/pixelrefer $(DESTDIR)$(LUADIR) $(DESTDIR)$(BINDIR)
	@install -m 755 $(MODULE) $(DESTDIR)$(LIBDIR)/pixelrefer/core.so
	@install -m 644 $(DOCUMENTED) $(DESTDIR)$(LIBDIR)/pixelrefer/core.doc
	@cd lua && find pixelrefer -name '*.lua' -exec install -D -m 644 {} $(abspath $(DESTDIR)$(LUADIR))/{} \;
	@cd examples && find models -type f -exec install -D -m 644 {} $(abspath $(DESTDIR)$(LUADIR))/pixelrefer/{} \;
	@install -m 755 bin/pixelrefer $(DESTDIR)$(BINDIR)/pixelrefer
	@echo "installed below $(DESTDIR)$(PREFIX)"

clean: ## remove what was built
	@rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

-include $(OBJECTS:.o=.d)
.PHONY: all deps demo test check check-long parity accuracy bench lint format docs fuzz install clean help
