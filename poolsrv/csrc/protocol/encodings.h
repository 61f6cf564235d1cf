/* Which codings of a file does a client take? RFC 9110 section 12.5.3. */
#ifndef POOLSRV_ENCODINGS_H
#define POOLSRV_ENCODINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/http1.h"

/* The codings a file may lie beside itself in, in our order of preference.
 * X(id, coding, suffix of the file) */
#define ENCODINGS(X)                 \
    X(ENCODING_BR, "br", ".br")      \
    X(ENCODING_ZSTD, "zstd", ".zst") \
    X(ENCODING_GZIP, "gzip", ".gz")

typedef enum {
#define X(id, coding, suffix) id,
    ENCODINGS(X)
#undef X
        ENCODING_COUNT
} Encoding;

typedef struct {
    const char *coding, *suffix;
} EncodingNames;

extern const EncodingNames encoding_names[ENCODING_COUNT];

/* Write those that the client would rather have than the file as it is, best
 * first; how many these are. */
uint32_t encodings_read(const Http1Head *head, const char *base,
                        Encoding wanted[ENCODING_COUNT]);

#endif
