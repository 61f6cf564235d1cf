/* Which file answers a request: opened, and what is to be said of it. */
#ifndef POOLSRV_FOUND_H
#define POOLSRV_FOUND_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/conditions.h"
#include "protocol/http1.h"
#include "worker/folders.h"

/* `"` mtime `-` size `-zstd"` */
#define FOUND_TAG 48

typedef struct {
    int fd; /* the owner's to close or to pass on */
    uint64_t size;
    Validator validator; /* its tag is: */
    char tag[FOUND_TAG];
    const char *type;
    const char *coding;        /* NULL: it is as it is */
    bool varies;               /* other clients get it in another coding */
    const char *cache_control; /* "": none */
} Found;

typedef enum {
    FOUND_FILE,
    FOUND_FOLDER,  /* which has an index: it is to be asked for with a slash */
    FOUND_NOTHING, /* or nothing that may be seen */
    FOUND_LINK,    /* the same, because of a link that is not followed */
    FOUND_CLOSED,  /* the same, because this process may not read it */
    FOUND_FAILED,  /* errno */
} FoundResult;

/* `path` is what stands behind the mount in the request's path,
 * percent-encoded, with its slash. `now` in seconds since 1970. */
FoundResult found_for(Found *found, const Folder *folder, const Http1Head *head,
                      const char *base, const char *path, size_t size,
                      int64_t now);

/* Fill in from a descriptor that is open: its size, tag and date. False: it is
 * no regular file, or cannot be asked. */
bool found_stat(Found *found, int fd, const char *suffix, int64_t now);

#endif
