/* Whose a request is, as far as its first bytes tell.
 *
 * Pure C, without state. It reads what mounts_find() wants to know, and judges
 * nothing else: whoever serves the request parses the head. So this may be
 * wrong about a head that is malformed, and about one of which a proxy says
 * something else in its fields; about all others it is right or does not know.
 */
#ifndef POOLSRV_PEEK_H
#define POOLSRV_PEEK_H

#include "common/mounts.h"

typedef enum {
    PEEK_KNOWN,   /* the group of the mount */
    PEEK_PARTIAL, /* more bytes are needed */
    PEEK_NOBODYS, /* no mount is there, or one of all groups, or it is no head:
                   * any group may answer */
} PeekResult;

PeekResult peek_group(const Mounts *m, const char *bytes, size_t size,
                      uint16_t *group);

#endif
