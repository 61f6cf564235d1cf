/* Answers with a file, or part of one. */
#ifndef POOLSRV_FILE_ANSWER_H
#define POOLSRV_FILE_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/found.h"
#include "worker/worker.h"

/* What stands in the head beside what is said of the file. */
typedef struct {
    const char *lines; /* complete */
    size_t size;
    bool always;   /* they stand in answers without the file, too */
    bool has_type; /* the lines name one */
    bool has_date, has_server;
    bool closes; /* the connection is to end with this answer */
} FileAnswerFields;

/* Answer a GET or HEAD with what the client asks for of the file: all of it,
 * ranges, or 304, 412 or 416. What the socket does not take waits without the
 * thread. found->fd is given away. */
void file_answer_send(Thread *t, Conn *c, Request *r, Found *found,
                      const FileAnswerFields *more);

/* Answer with these bytes of it and this status ("206 Partial Content"), or
 * with status and fields alone if the size is 0, whatever the client asks for.
 * found->fd is given away. */
void file_answer_part(Thread *t, Conn *c, Request *r, Found *found,
                      const FileAnswerFields *more, const char *status,
                      uint64_t at, uint64_t size);

/* Answer without a file, with the page for the status if there is one: `status`
 * reads like "404 Not Found", `fields` are complete lines, `more` may be NULL.
 * `reason` is for the access log, or NULL. */
void file_answer_refuse(Thread *t, Conn *c, Request *r, const char *status,
                        const char *fields, const FileAnswerFields *more,
                        const char *reason);

#endif
