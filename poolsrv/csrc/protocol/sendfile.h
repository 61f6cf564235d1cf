/* What an application says beside X-Sendfile, the name of the file that is to
 * be its answer. */
#ifndef POOLSRV_SENDFILE_H
#define POOLSRV_SENDFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    bool has_type;
    /* It has looked at conditions and ranges itself, as Flask does: it names
     * validators, or says whether there are ranges. */
    bool has_judged;
    int64_t first, last; /* of Content-Range; -1: it has none */
} SendfileFacts;

/* From the fields of its answer, which are complete lines. */
SendfileFacts sendfile_read(const char *lines, size_t size);

/* The part of `path` that is below the folder, whose path has no slash at its
 * end: without the slash between. NULL: it is not below it. */
const char *sendfile_below(const char *path, const char *folder);

#endif
