# walefs. make: build/walefs. make install (PREFIX, DESTDIR), make deb: install it. make demo: see it
# work. make test: every test. make check: formatting, linters, both compilers, sanitizers, tests. make bench: measurements.
# make coverage: what the unit tests run of each source.
# VARIANT=clang|asan|tsan|cov builds into build/VARIANT with that compiler, sanitizer or gcov's counters.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
PKG_CONFIG ?= pkg-config
VARIANT ?=

PKGS := fuse3 libcurl libcrypto gpgme expat jansson libarchive libdeflate
BUILD := build$(if $(VARIANT),/$(VARIANT))

WARN := -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wvla -Werror
OPT ?= -O2 -g
CFLAGS_BASE := -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314 \
	-DWALEFS_VERSION='"$(VERSION)"' -I. $(OPT) $(WARN) -pthread -fstack-protector-strong
LIBS := -llzo2 -pthread

ifeq ($(VARIANT),clang)
CC := clang
endif
ifeq ($(VARIANT),asan)
CC := clang
CFLAGS_BASE += -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
LDFLAGS += -fsanitize=address,undefined
endif
ifeq ($(VARIANT),tsan)
CC := clang
CFLAGS_BASE += -fsanitize=thread -fno-omit-frame-pointer
LDFLAGS += -fsanitize=thread
endif
# Unoptimized: each line that was written is one that can be counted. Warnings are the other builds'.
ifeq ($(VARIANT),cov)
CC := gcc
CFLAGS_BASE += -O0 -w --coverage -fprofile-update=atomic
LDFLAGS += --coverage
endif

CORE_SRC := $(wildcard core/*.c)
FS_SRC := $(wildcard fs/*.c)
MOUNT_SRC := $(wildcard mount/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT_COMMON := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
ARCHIVES := $(BUILD)/libmount.a $(BUILD)/libfs.a $(BUILD)/libcore.a
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))

.PHONY: all
all: $(BUILD)/walefs

.SECONDEXPANSION:
.SECONDARY:

$(BUILD)/libcore.a: $(call obj,$(CORE_SRC))
$(BUILD)/libfs.a: $(call obj,$(FS_SRC))
$(BUILD)/libmount.a: $(call obj,$(filter-out mount/main.c,$(MOUNT_SRC)))
$(BUILD)/lib%.a:
	@rm -f $@
	@ar rcs $@ $^

$(BUILD)/walefs: $(call obj,mount/main.c) $(ARCHIVES)
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $$($(PKG_CONFIG) --libs $(PKGS)) $(LIBS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(call obj,$(UNIT_COMMON)) $(ARCHIVES)
	@mkdir -p $(@D)
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $$($(PKG_CONFIG) --libs $(PKGS) cmocka) $(LIBS)

# These are asked for memory by walefs' sources: tests/unit/no_memory.c.
$(BUILD)/tests/test_no_mem%: LDFLAGS += $(foreach f,malloc calloc realloc reallocarray strdup strndup \
	asprintf,-Wl,--wrap=$(f))

$(BUILD)/obj/%.o: %.c | $(BUILD)/packages
	@mkdir -p $(@D)
	@echo "  CC   $@"
	@$(CC) $(CFLAGS_BASE) $(CFLAGS) $$($(PKG_CONFIG) --cflags $(PKGS)) -MMD -MP -c -o $@ $<

# mount(8) looks for its helpers in /sbin only, systemd for units below /usr and /usr/local.
HELPER_DIR ?= $(if $(filter /usr /usr/local,$(PREFIX)),,$(PREFIX))/sbin
UNIT_DIR ?= $(PREFIX)/lib/systemd/system
SHARE := $(DESTDIR)$(PREFIX)/share
UNITS := $(wildcard mount/systemd/*.service mount/systemd/*.timer)
EXAMPLES := $(filter-out $(UNITS),$(wildcard mount/systemd/*))
SCRIPTS := $(filter-out %.8,$(wildcard mount/walefs-*))
COMPLETIONS := $(SHARE)/bash-completion/completions

# Asked once: what is missing is said in one line, not by every compiler that is started.
$(BUILD)/packages:
	@{ command -v $(CC) $(PKG_CONFIG) && $(PKG_CONFIG) --exists $(PKGS) lzo2; } >/dev/null 2>&1 || { \
		echo 'packages are missing; as root:' \
			"apt-get install --no-install-recommends -y" $$(tests/lib/packages.sh missing build) >&2; exit 1; }
	@mkdir -p $(@D) && touch $@

.PHONY: install
install: $(BUILD)/walefs
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(HELPER_DIR) $(DESTDIR)$(UNIT_DIR) \
		$(SHARE)/man/man8 $(SHARE)/doc/walefs/examples $(COMPLETIONS)
	install -m 755 $(BUILD)/walefs $(SCRIPTS) $(DESTDIR)$(PREFIX)/bin
	ln -sfn $(PREFIX)/bin/walefs $(DESTDIR)$(HELPER_DIR)/mount.walefs
	install -m 644 mount/*.8 $(SHARE)/man/man8
	ln -sfn walefs.8 $(SHARE)/man/man8/mount.walefs.8
	install -m 644 README.md mount/docs/*.md $(SHARE)/doc/walefs
	install -m 644 $(EXAMPLES) $(SHARE)/doc/walefs/examples
	install -m 644 mount/completion/walefs $(COMPLETIONS)
	for s in $(notdir $(SCRIPTS)); do ln -sfn walefs $(COMPLETIONS)/$$s || exit 1; done
	for u in $(UNITS); do sed 's,/usr/bin/walefs,$(PREFIX)/bin/walefs,' $$u \
		>$(DESTDIR)$(UNIT_DIR)/$${u##*/} || exit 1; done

# A Debian package for this machine's release: build/walefs_VERSION_ARCHITECTURE.deb.
.PHONY: deb
deb: $(BUILD)/walefs
	@mount/deb.sh $(VERSION) $(BUILD)

# ---- demonstration, tests, measurements: each installs the Debian packages that are missing ----

.PHONY: demo
demo:
	@mount/demo.sh

# make test T=PATTERN runs what matches (see tests/run).
T ?=
.PHONY: test
test:
	@tests/lib/packages.sh ensure test
	@$(MAKE) --no-print-directory -j$$(nproc) unit-programs
	@$(MAKE) --no-print-directory test-built

.PHONY: unit-programs
unit-programs: $(BUILD)/walefs $(UNIT_BIN)

.PHONY: test-built
test-built: unit-programs
	@WALEFS=$(abspath $(BUILD))/walefs tests/run '$(T)' $(UNIT_BIN)

# What the unit tests run of core/ and fs/. No source may have less than COVERAGE percent of its lines run.
COVERAGE ?= 70
.PHONY: coverage
coverage:
	@tests/lib/packages.sh ensure test
	@$(MAKE) --no-print-directory -j$$(nproc) VARIANT=cov coverage-built

.PHONY: coverage-built
coverage-built: unit-programs
	@tests/lib/coverage.sh $(BUILD) $(COVERAGE) $(UNIT_BIN)

.PHONY: bench
bench:
	@tests/lib/packages.sh ensure test
	@$(MAKE) --no-print-directory $(BUILD)/walefs
	@WALEFS=$(abspath $(BUILD))/walefs tests/bench/run.sh

# ---- what must hold before a change lands ----

C_FILES := $(wildcard core/*.[ch] fs/*.[ch] mount/*.[ch] tests/unit/*.[ch] tests/fuzz/*.c)
SHELL_FILES := $(wildcard .ci/run tests/run tests/lib/*.sh tests/mount/*.sh tests/bench/*.sh mount/*.sh) \
	$(SCRIPTS) mount/completion/walefs

.PHONY: format
format:
	clang-format -i $(C_FILES)

.PHONY: lint
lint:
	@tests/lib/packages.sh ensure lint
	clang-format --dry-run -Werror $(C_FILES)
	shellcheck -x $(SHELL_FILES)
	mandoc -T lint -W warning mount/*.8
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
		--suppress=missingIncludeSystem --error-exitcode=1 -I. core fs mount
	clang-tidy --quiet $(CORE_SRC) $(FS_SRC) $(MOUNT_SRC) -- -std=c11 -D_GNU_SOURCE \
		-DFUSE_USE_VERSION=314 -DWALEFS_VERSION='"$(VERSION)"' -I. $$($(PKG_CONFIG) --cflags $(PKGS))

# Under the address sanitizer run all tests but those of memory and size, under the thread sanitizer,
# which is slow, the unit tests.
.PHONY: check
check: lint
	@tests/lib/packages.sh ensure test
	$(MAKE) --no-print-directory VARIANT=clang all
	$(MAKE) --no-print-directory VARIANT=asan T='^(unit|archive_class|backup_writes|basebackup|check|cli|credentials|dumps|iam|interop|keys|mounting|outage|pg_cycle|proxy|race|scripts|status|writers)' test-built
	$(MAKE) --no-print-directory VARIANT=tsan T='^unit' test-built
	$(MAKE) --no-print-directory coverage
	$(MAKE) --no-print-directory test

# Two targets, each for FUZZ_SECONDS; what they find is added to build/fuzz/TARGET.d.
.PHONY: fuzz
fuzz: build/fuzz/fuzz_lzop build/fuzz/fuzz_index
	@mkdir -p build/fuzz/fuzz_lzop.d build/fuzz/fuzz_index.d
	for f in tests/fixtures/lzop/*; do { printf 0; cat $$f; } >build/fuzz/fuzz_lzop.d/$${f##*/}; done
	{ printf i; cat tests/fuzz/index.txt; } >build/fuzz/fuzz_index.d/index
	for f in gnu ustar pax; do tar --format=$$f -cf build/fuzz/fuzz_index.d/$$f tests/fuzz; done
	for t in $^; do (cd build/fuzz && ./$${t##*/} -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4000 $${t##*/}.d) || exit 1; done

FUZZ_lzop := core/lzop_encode.c core/lzop_decode.c core/lzop_map.c core/stream.c core/err.c
FUZZ_index := core/backup_index.c core/backup_index_text.c core/backup_index_scan.c core/tar_read.c \
	core/lzop_map.c core/path_slots.c core/stream.c core/buf.c core/err.c core/log.c core/log_ring.c core/metrics.c \
	core/call.c fs/backup_tree.c

build/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(wildcard core/*.[ch] fs/*.[ch])
	@mkdir -p build/fuzz
	clang -std=c11 -D_GNU_SOURCE -I. -O1 -g -fsanitize=fuzzer,address,undefined $< $(FUZZ_$*) \
		-llzo2 -ldeflate -lcrypto -larchive -o $@
FUZZ_SECONDS ?= 60

.PHONY: clean
clean:
	rm -rf build

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

