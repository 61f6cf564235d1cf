/* Which media type does a file have? By the suffix of its name. */
#ifndef POOLSRV_MEDIA_TYPES_H
#define POOLSRV_MEDIA_TYPES_H

#include <stddef.h>

typedef struct {
    const char *suffix; /* lower case, without its dot */
    const char *type;   /* as it is to be sent */
} MediaType;

/* For the name of a file, without folders or with them; `own` (may be empty)
 * goes before what is built in. Never NULL: what nobody knows is
 * application/octet-stream. */
const char *media_types_find(const char *name, size_t size,
                             const MediaType *own, size_t own_count);

#endif
