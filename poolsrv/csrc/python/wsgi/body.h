/* The body of a request as wsgi.input reads it.
 *
 * It is complete before the application runs, in memory or in a file, so that
 * no read ever waits; or, with request buffering off, each read takes what the
 * client has sent and waits for more. Callers are inside the gate.
 */
#ifndef POOLSRV_BODY_H
#define POOLSRV_BODY_H

#include "python/wsgi/wsgi.h"

typedef struct {
    Context *const *context; /* of the object that reads; NULL there: it ends */
    const char *data;        /* NULL: spooled, or streamed */
    int spool;               /* the request's, or -1 */
    bool streaming;
    uint64_t size, at;
    Buffer ahead; /* streamed: read but not asked for yet, from `at` on */
} Body;

/* The next `size` bytes as a bytes object. */
PyObject *body_take(Body *b, uint64_t size);

/* What is there, at most `size` bytes; waits only if nothing is. */
PyObject *body_take_some(Body *b, uint64_t size);

/* Where the line that starts at `at` ends, at most `most` bytes on. 0; -1 and
 * exception. */
int body_line_size(Body *b, uint64_t most, uint64_t *size);

/* The request is over. */
void body_clear(Body *b);

#endif
