/* S3's XML answers: a walk over an element tree that hands out the texts. Document types are
 * refused, so no entity can be declared; depth, text and document sizes are bounded. */
#ifndef WALEFS_CORE_S3_XML_H
#define WALEFS_CORE_S3_XML_H

#include <stdbool.h>
#include <stddef.h>

#define S3_XML_PATH_MAX 256

/* U+FFFD: stands in a text for what XML 1.0 does not allow and the store sent all the same. */
#define S3_XML_REPLACED "\xef\xbf\xbd"

/* Called at the end of each element with its path ("ListBucketResult/Contents/Key") and its own
 * text. False ends the walk. */
typedef bool s3_xml_fn(void *arg, const char *path, const char *text, size_t len);

/* True when the whole document is well-formed and FN never returned false. */
bool s3_xml_parse(const char *data, size_t n, s3_xml_fn *fn, void *arg);

/* Appends TEXT as character data; false when the buffer is full or when XML 1.0 cannot carry TEXT
 * (control characters, broken UTF-8). */
struct buf;
bool s3_xml_escape(struct buf *out, const char *text);

#endif
