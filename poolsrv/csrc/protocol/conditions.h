/* Conditional requests, RFC 9110 section 13: does the client, or its cache,
 * need the answer at all? */
#ifndef POOLSRV_CONDITIONS_H
#define POOLSRV_CONDITIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/http1.h"

/* What tells one version of a file from another. */
typedef struct {
    const char *tag; /* with its quotes, without W/ */
    size_t tag_size;
    int64_t modified; /* seconds since 1970 */
    /* It may have changed again within the same second: neither tag nor date
     * promise the same bytes. */
    bool weak;
} Validator;

typedef enum {
    CONDITIONS_SERVE,
    CONDITIONS_NOT_MODIFIED, /* 304 */
    CONDITIONS_FAILED,       /* 412 */
} ConditionsResult;

/* Of a GET or HEAD for something that exists. `base` is where the head's spans
 * count from; `now` is in seconds since 1970. */
ConditionsResult conditions_judge(const Http1Head *head, const char *base,
                                  const Validator *is, int64_t now);

/* May a Range be answered? Not if it is meant for another version. */
bool conditions_allow_range(const Http1Head *head, const char *base,
                            const Validator *is, int64_t now);

#endif
