/* A line of the access log: the combined format with the time taken and the
 * request's id behind it, and why if the server itself has answered; or JSON.
 *
 * Pure C, without state. */
#ifndef POOLSRV_ACCESS_LINE_H
#define POOLSRV_ACCESS_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/address.h"

/* A line is at most this long; what does not fit is cut, never the line end. */
#define ACCESS_LINE 4096

typedef struct {
    const char *bytes; /* as they came */
    size_t size;
} AccessText;

/* What is known of a request; what is not is empty. */
typedef struct {
    time_t now;
    Address client;
    AccessText method, target;
    AccessText referer, agent; /* NULL: there was no such field */
    unsigned minor;            /* HTTP/1.minor */
    unsigned status;
    int64_t body_size;
    uint64_t took;      /* nanoseconds */
    const char *id;     /* NULL: it has none */
    const char *reason; /* of an answer of the server's own, or NULL */
} AccessFacts;

/* Write the line, with its end: how many bytes. */
size_t access_line_write(char line[ACCESS_LINE], const AccessFacts *facts,
                         bool json);

#endif
