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
LIBS = $(PACKAGE_LIBS) -lm -ldl -pthread

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

# Instruction-set variants of the kernels: compiled for their set, chosen at run time.
AVX512_FLAGS = -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
$(BUILD)/obj/csrc/cpu/%_avx2.o: ALL_CFLAGS += -mavx2 -mfma -mf16c
$(BUILD)/obj/csrc/cpu/%_avx512.o: ALL_CFLAGS += $(AVX512_FLAGS)
$(BUILD)/obj/csrc/cpu/%_avx512_vnni.o: ALL_CFLAGS += $(AVX512_FLAGS) -mavx512vnni
$(BUILD)/obj/csrc/cpu/%_avx512_bf16.o: ALL_CFLAGS += $(AVX512_FLAGS) -mavx512vnni -mavx512bf16
$(BUILD)/obj/csrc/cpu/%_amx.o: ALL_CFLAGS += $(AVX512_FLAGS) -mavx512vnni -mavx512bf16

# The generic vectors of the scalar set make gcc's debug information for them slow to work out. With sanitizers addresses
# are left to AddressSanitizer, which finds what matters: a check more at each access makes tests half as slow again.
$(BUILD)/obj/csrc/cpu/kernels_%.o: ALL_CFLAGS += -fno-var-tracking-assignments \
	-fno-sanitize=null,alignment,object-size,pointer-overflow

# ---- devices ------------------------------------------------------------------------------------------------------
#
# kernels/ makes a plugin that is found beside the module and loaded when its device is asked for: by nvcc for GPUs, and
# by the host's compiler for the emulated device of the tests, which needs CUDA's headers alone.

CUDA_HOME ?= $(firstword $(wildcard /usr/local/cuda))
NVCC ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc))
NVCC_THREADS ?= 1
CUDA_ARCHITECTURES ?= 80 86 89 90
# Where .ci/deps puts CUDA's headers on machines without CUDA.
CUDA_HEADERS = build/cuda/include
CUDA_INCLUDE = $(patsubst %/cuda_runtime_api.h,%,$(firstword $(wildcard $(addsuffix /cuda_runtime_api.h, \
	$(CUDA_HOME)/include $(NVCC:%/bin/nvcc=%/include) $(CUDA_HEADERS)))))

KERNELS := $(sort $(wildcard kernels/*.cu))
EMULATOR := $(sort $(wildcard kernels/emu/*.cc))
CUDA_OBJECTS := $(KERNELS:%.cu=$(BUILD)/obj/%.cuda.o)
EMU_OBJECTS := $(KERNELS:%.cu=$(BUILD)/obj/%.emu.o) $(EMULATOR:%.cc=$(BUILD)/obj/%.o)
CUDA_PLUGIN := $(BUILD)/pixelrefer/libpixelrefer_cuda.so
EMU_PLUGIN := $(BUILD)/pixelrefer/libpixelrefer_emu.so

PLUGIN_WARNINGS = -Wall -Wextra -Wshadow
ALL_CXXFLAGS = -std=c++17 -ffp-contract=off -fPIC -fvisibility=hidden -fno-exceptions -fno-strict-aliasing \
	-fno-gnu-unique -Wno-unknown-pragmas $(PLUGIN_WARNINGS) $(CFLAGS)
comma := ,
NVCC_FLAGS = -std=c++17 -O3 -lineinfo --threads $(NVCC_THREADS) -Icsrc -Ikernels \
	$(foreach a,$(CUDA_ARCHITECTURES),-gencode arch=compute_$a$(comma)code=sm_$a) \
	-gencode arch=compute_$(lastword $(CUDA_ARCHITECTURES))$(comma)code=compute_$(lastword $(CUDA_ARCHITECTURES)) \
	-Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-Wall,-Wextra,-Wshadow -Xptxas -v,-warn-spills

emu: $(EMU_PLUGIN) ## build the emulated device, which runs the kernels without a GPU

cuda: $(CUDA_PLUGIN) ## build the CUDA backend (nvcc from CUDA_HOME, /usr/local/cuda or PATH)

# For scripts: `make print-NVCC`.
print-%:
	@echo '$($*)'

# What the plugins use of the core is linked into them.
PLUGIN_CORE := $(BUILD)/obj/core.a
$(PLUGIN_CORE): $(filter $(BUILD)/obj/csrc/core/%,$(OBJECTS))
	@rm -f $@
	@$(AR) rcs $@ $^

$(EMU_PLUGIN): $(EMU_OBJECTS) $(PLUGIN_CORE) kernels/exports.map
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(CXX) -shared -Wl,-z,nodelete,-z,defs,--version-script=kernels/exports.map $(LDFLAGS) -o $@ $(EMU_OBJECTS) $(PLUGIN_CORE) \
		-lm -pthread

$(BUILD)/obj/kernels/%.emu.o: kernels/%.cu | $(BUILD)/cuda_headers
	@mkdir -p $(@D)
	@echo "CXX $<"
	@$(CXX) -x c++ -Icsrc -Ikernels -isystem $(CUDA_INCLUDE) $(ALL_CXXFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/kernels/emu/%.o: kernels/emu/%.cc | $(BUILD)/cuda_headers
	@mkdir -p $(@D)
	@echo "CXX $<"
	@$(CXX) -Ikernels -isystem $(CUDA_INCLUDE) $(ALL_CXXFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/cuda_headers: Makefile
	@test -n "$(CUDA_INCLUDE)" || { echo "no CUDA headers in CUDA_HOME, /usr/local/cuda or $(CUDA_HEADERS)" \
		"('make deps' fetches them)" >&2; exit 1; }
	@mkdir -p $(@D) && touch $@

$(CUDA_PLUGIN): $(CUDA_OBJECTS) $(PLUGIN_CORE) kernels/exports.map
	@mkdir -p $(@D)
	@echo "LD $@"
	@$(NVCC) -shared -cudart static -o $@ $(CUDA_OBJECTS) $(PLUGIN_CORE) -lcublasLt \
		-Xlinker -z,nodelete,-z,defs,--version-script=kernels/exports.map,-rpath,$(NVCC:%/bin/nvcc=%/lib64)

# Programs that test the dialect itself: on the emulated device, and (NAME.cuda) on a GPU.
DIALECT_HEADERS := $(wildcard kernels/gpu.h kernels/emu/*.h spec/kernels/*.h spec/kernels/*.cuh)
$(BUILD)/kernels/%: spec/kernels/%.cu $(DIALECT_HEADERS) $(filter $(BUILD)/obj/kernels/emu/%,$(EMU_OBJECTS))
	@mkdir -p $(@D)
	@echo "CXX $<"
	@$(CXX) -x c++ -Ikernels -isystem $(CUDA_INCLUDE) $(ALL_CXXFLAGS) $(LDFLAGS) -o $@ $< -x none \
		$(filter $(BUILD)/obj/kernels/emu/%,$(EMU_OBJECTS)) -lm -pthread

$(BUILD)/kernels/%.cuda: spec/kernels/%.cu $(DIALECT_HEADERS)
	@mkdir -p $(@D)
	@echo "NVCC $<"
	@$(NVCC) $(filter-out -Xptxas -v$(comma)-warn-spills,$(NVCC_FLAGS)) -cudart static -o $@ $< -lcublasLt \
		-Xlinker -rpath,$(NVCC:%/bin/nvcc=%/lib64)

# The assembler's words about registers and spills, and the PTX, are kept: spec/kernels/ptx.lua reads them.
$(BUILD)/obj/kernels/%.cuda.o: kernels/%.cu
	@test -n "$(NVCC)" || { echo "no nvcc in CUDA_HOME, /usr/local/cuda or PATH" >&2; exit 1; }
	@mkdir -p $(BUILD)/obj/kernels/ptx/$*
	@echo "NVCC $<"
	@$(NVCC) $(NVCC_FLAGS) -MMD -MP --keep --keep-dir $(BUILD)/obj/kernels/ptx/$* -c -o $@ $< 2>$@.log || \
		{ cat $@.log >&2; exit 1; }
	@cd $(BUILD)/obj/kernels/ptx/$* && find . -type f ! -name '*.ptx' -delete
	@grep -i warning $@.log >&2 || true

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

parity: all ## compare with golden tensors (GOLDEN=dir DEVICE=name COMPUTE=f32|bf16 CASE=name)
	@$(run_lua) spec/parity/run.lua $(if $(GOLDEN),--golden $(GOLDEN)) $(if $(DEVICE),--device $(DEVICE)) \
		$(if $(COMPUTE),--compute $(COMPUTE)) $(if $(CASE),--case $(CASE))

# DEVICE=emu is a dry run.
gpu: all ## on a machine with a GPU: correctness and speed of the CUDA backend (REQUIRE_CUDA=1)
	@$(MAKE) --no-print-directory $(if $(filter emu,$(DEVICE)),emu $(BUILD)/kernels/conformance,\
		cuda $(BUILD)/kernels/conformance.cuda)
	@$(run_lua) spec/gpu.lua $(or $(DEVICE),cuda)

# Then `make cuda` again. With DEVICE=emu a dry run, which leaves the file alone.
plans: all ## on a machine with a GPU: find out which of cuBLASLt's proposals is fastest (kernels/linear_plans.h)
	@$(MAKE) --no-print-directory $(or $(DEVICE),cuda)
	@$(if $(filter emu,$(DEVICE)),cp kernels/linear_plans.h $(BUILD)/linear_plans.h)
	@$(run_lua) spec/bench/plans.lua $(or $(DEVICE),cuda) \
		$(if $(filter emu,$(DEVICE)),$(BUILD)/linear_plans.h 128,kernels/linear_plans.h)

# The small models are asked about scenes that nobody has seen; another SEED draws others.
accuracy: all ## count right answers of small models on fresh scenes (SEED=n MODELS="dir dir")
	@$(run_lua) examples/shapes/accuracy.lua $(or $(MODELS),$(wildcard examples/models/*)) $(if $(SEED),--seed $(SEED))

bench: all ## measure speed at true size, as ratios
	@$(run_lua) spec/bench/true_size.lua

bench-peers: all ## measure beside the peers that spec/bench/peers/setup_*.sh have set up, as ratios (PYTHON=python)
	@$(run_lua) spec/bench/peers.lua

lint: all ## rings, symbols, lengths, documentation, luacheck
	@$(run_lua) spec/lint/run.lua $(BUILD)

format: ## lay out the C files and the kernels as .clang-format says
	@clang-format -i $(shell find csrc spec kernels -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh')

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
	@test ! -e $(CUDA_PLUGIN) || install -m 755 $(CUDA_PLUGIN) $(DESTDIR)$(LIBDIR)/pixelrefer/
	@install -m 644 $(DOCUMENTED) $(DESTDIR)$(LIBDIR)/pixelrefer/core.doc
	@cd lua && find pixelrefer -name '*.lua' -exec install -D -m 644 {} $(abspath $(DESTDIR)$(LUADIR))/{} \;
	@cd examples && find models -type f -exec install -D -m 644 {} $(abspath $(DESTDIR)$(LUADIR))/pixelrefer/{} \;
	@install -m 755 bin/pixelrefer $(DESTDIR)$(BINDIR)/pixelrefer
	@echo "installed below $(DESTDIR)$(PREFIX)"

clean: ## remove what was built
	@rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

-include $(OBJECTS:.o=.d) $(CUDA_OBJECTS:.o=.d) $(EMU_OBJECTS:.o=.d)
.PHONY: all emu cuda gpu plans deps demo test check check-long parity accuracy bench bench-peers lint format docs fuzz install clean help
