/* Range requests, RFC 9110 section 14, and their multipart answers. */
#ifndef POOLSRV_RANGES_H
#define POOLSRV_RANGES_H

#include <stdint.h>

#include "common/buffer.h"
#include "protocol/http1.h"

/* So many parts an answer may have. What overlaps is joined, so an answer is
 * never longer than the file and the heads of these. */
#define RANGES_MOST 8

typedef struct {
    uint64_t at;
    uint64_t size; /* not 0 */
} Range;

typedef struct {
    Range parts[RANGES_MOST];
    uint32_t count;
} Ranges;

typedef enum {
    RANGES_IGNORED,       /* there is none that we answer: 200 */
    RANGES_FOUND,         /* 206 */
    RANGES_UNSATISFIABLE, /* 416 */
} RangesResult;

/* Which parts of `length` bytes the head's Range asks for. */
RangesResult ranges_read(const Http1Head *head, const char *base,
                         uint64_t length, Ranges *ranges);

/* "bytes 0-99/1000" */
int ranges_add_part(Buffer *out, const Range *part, uint64_t length);

/* What stands in a multipart body before a part, and at its end. The boundary
 * must be no part of the file: one that is random is none. */
int ranges_add_head(Buffer *out, const Ranges *ranges, uint32_t part,
                    uint64_t length, const char *boundary, const char *type);
int ranges_add_end(Buffer *out, const char *boundary);

#endif
