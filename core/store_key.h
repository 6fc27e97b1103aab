/* What the stores share: rules for keys and metadata, and their form in messages. */
#ifndef WALEFS_CORE_STORE_KEY_H
#define WALEFS_CORE_STORE_KEY_H

#include "core/store.h"

#define STORE_META_PREFIX "walefs-"
#define STORE_KEY_SHOWN 200
#define STORE_PROBE_KEY "walefs_probe"
#define STORE_PROBE_TEXT "Written by walefs at mount to see whether this archive can be written.\n"

/* False with ERR_INVALID for a key that is empty, absolute, too long or has "." or ".." in it. */
bool store_key_check(const char *key, size_t prefix_len, struct err *err);

/* KEY, its middle left out when it would push the reason out of an error text. Returns OUT. */
const char *store_key_show(const char *key, char out[STORE_KEY_SHOWN]);

bool store_meta_name_ok(const char *name);
bool store_meta_check(const struct store_meta *meta, size_t n, struct err *err);

/* Ignores names that are not ours and values that do not fit. */
void store_info_add_meta(struct store_info *info, const char *name, const char *value, size_t len);

void store_page_sort(struct store_page *page);

#endif
