/* A raw-byte case: tests/http/NAME.http; tests/http_cases.py says the form. */
#ifndef POOLSRV_TESTS_CASE_H
#define POOLSRV_TESTS_CASE_H

#include "protocol/http1.h"
#include "text.h"

typedef struct {
    Text input;         /* the bytes to send */
    Text expect;        /* lines that message_feed() must say */
    int status;         /* of the answer; 0: none, the request is cut short */
    char result[64];    /* name of the Http1Result */
    Http1Limits limits; /* message_limits but for what the case sets */
} Case;

/* Aborts if the file is no case. */
void case_read(Case *read, const char *path);
void case_free(Case *read);

#endif
