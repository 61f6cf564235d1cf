/* A request's head from its fields, for what reads fields of a head. */
#ifndef POOLSRV_TESTS_HEADS_H
#define POOLSRV_TESTS_HEADS_H

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "protocol/http1.h"

typedef struct {
    Http1Head head;
    char *bytes; /* in a block of its own size: a sanitizer sees more read */
} Asked;

static inline void
asked_free(Asked *a)
{
    free(a->bytes);
    free(a->head.fields);
}

/* `fields` are lines with their CR LF. */
static inline Asked
ask(const char *fields)
{
    static const Http1Limits limits = {
        .line = 1000, .field_size = 1000, .fields = 16, .head = 8000};
    static const char line[] = "GET / HTTP/1.1\r\nHost: a\r\n";
    const size_t size = sizeof line - 1 + strlen(fields) + 2;
    Asked a = {.bytes = malloc(size)};
    Http1Field *room = malloc(limits.fields * sizeof *room);
    CHECK(a.bytes && room);
    memcpy(a.bytes, line, sizeof line - 1);
    memcpy(a.bytes + sizeof line - 1, fields, strlen(fields));
    memcpy(a.bytes + size - 2, "\r\n", 2);
    http1_head_init(&a.head, room);
    CHECK(http1_head_parse(&a.head, &limits, a.bytes, size) == HTTP1_DONE);
    return a;
}

#endif
