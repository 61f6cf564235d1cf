/* Which application, folder or answer a request is for: a table of mounts, each
 * at a host and a path.
 *
 * Pure C, and the same in supervisor and worker. The table is made once and
 * never changes, so threads share it without a lock. docs/applications.md says
 * by which rules a mount is found; in short:
 *
 *   - the path is compared decoded, by whole segments, and nothing else is made
 *     of it: `//`, `.` and `..` are what they are;
 *   - an exact host comes before `*.host` (the longest first), and that before
 *     none; among the mounts of a host the longest path comes first.
 *
 * What a search costs hardly grows with the table: it goes by halves.
 */
#ifndef POOLSRV_MOUNTS_H
#define POOLSRV_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"

/* What answers there. X(name, what Python calls it) */
#define MOUNT_KINDS(X)                  \
    X(MOUNT_APPLICATION, "application") \
    X(MOUNT_FOLDER, "folder")           \
    X(MOUNT_STATUS, "status")

typedef enum {
#define X(name, text) name,
    MOUNT_KINDS(X)
#undef X
        MOUNT_KIND_COUNT
} MountKind;

/* Of a mount without an application, or without a folder. */
#define MOUNT_NONE UINT32_MAX

/* The group of what is answered by that to which the request has come. */
#define MOUNT_OF_ALL UINT16_MAX

typedef struct {
    const char *text;
    uint32_t size;
} MountText;

typedef struct {
    MountText host; /* lower case, no port; "*.example.org": all hosts below
                     * it; empty: any */
    MountText path; /* decoded, no slash at its end; empty: all paths */
    uint32_t inner; /* so many bytes at the end of `path` are PATH_INFO's: it is
                     * a part of what is mounted above */
    MountKind kind;
    uint32_t number;      /* its place in the settings */
    uint32_t application; /* its place among those of the worker; also of a
                           * folder that has one to fall back on */
    uint32_t folder;      /* its place among the folders and files */
    uint16_t group;       /* of processes: its number */
    uint16_t status;      /* of MOUNT_STATUS */
    Networks allowed;     /* whose clients it answers; none: everybody's */
} Mount;

typedef struct Mounts Mounts;

typedef enum {
    MOUNTS_FOUND,
    MOUNTS_NO_PATH, /* the host is served, but nothing at this path: 404 */
    MOUNTS_NO_HOST, /* every mount has a host, and none has this: 421 */
} MountsResult;

typedef struct {
    MountsResult result;
    const Mount *mount; /* NULL unless it was found */
    uint32_t cut; /* bytes of the path, as it was sent, before PATH_INFO's */
} MountsFound;

/* Texts are copied; the networks stay the caller's. Of two with the same host
 * and path the first counts. NULL: no memory. */
Mounts *mounts_new(const Mount *mounts, uint32_t count);
void mounts_free(Mounts *m);

/* `host` is name[:port] as the client asked for, empty if it named none; `path`
 * is still percent-encoded, and empty for `OPTIONS *`. */
MountsFound mounts_find(const Mounts *m, const char *host, size_t host_size,
                        const char *path, size_t path_size);

/* Does it matter which host is asked for? */
bool mounts_know_hosts(const Mounts *m);
/* Has another group than this any of them? */
bool mounts_have_other(const Mounts *m, uint16_t group);

/* Is the path, which is percent-encoded, at or below `prefix`, which is not and
 * has no slash at its end? Then `*cut` of its bytes are the prefix. */
bool mounts_is_below(const char *path, size_t path_size, const char *prefix,
                     size_t prefix_size, uint32_t *cut);

#endif
