# walefs. Targets: all (default), install, test, check, bench, demo, lint, format, clean.
# VARIANT=asan|tsan|clang builds into build/VARIANT with those flags.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
PKG_CONFIG ?= pkg-config
VARIANT ?=

PKGS := fuse3 libcurl libcrypto gpgme expat
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

CORE_SRC := $(wildcard core/*.c)
FS_SRC := $(wildcard fs/*.c)
MOUNT_SRC := $(wildcard mount/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT_COMMON := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))

.PHONY: all
all: $(BUILD)/walefs

.SECONDEXPANSION:
.SECONDARY:

$(BUILD)/libcore.a: $(call obj,$(CORE_SRC))
$(BUILD)/libfs.a: $(call obj,$(FS_SRC))
$(BUILD)/lib%.a:
	rm -f $@ && ar rcs $@ $^

$(BUILD)/walefs: $(call obj,$(MOUNT_SRC)) $(BUILD)/libfs.a $(BUILD)/libcore.a
	$(CC) $(LDFLAGS) -o $@ $^ $$($(PKG_CONFIG) --libs $(PKGS)) $(LIBS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(call obj,$(UNIT_COMMON)) $(BUILD)/libfs.a $(BUILD)/libcore.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $$($(PKG_CONFIG) --libs $(PKGS) cmocka) $(LIBS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_BASE) $(CFLAGS) $$($(PKG_CONFIG) --cflags $(PKGS)) -MMD -MP -c -o $@ $<

.PHONY: unit
unit: $(UNIT_BIN)
	@set -e; for t in $(UNIT_BIN); do echo "== $$t"; $$t; done

.PHONY: clean
clean:
	rm -rf build

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
