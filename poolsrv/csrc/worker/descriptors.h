/* Which numbers the descriptors of connections have, and the limit of open
 * files.
 *
 * The application may use select(), which knows numbers below FD_SETSIZE only,
 * and the programs that it starts inherit the soft limit, which is as low as
 * that for their sake. So a worker keeps the limit that the server was started
 * with while it holds few connections; if there are many, the limit is as high
 * as it may be, and they are put where select() does not reach.
 */
#ifndef POOLSRV_DESCRIPTORS_H
#define POOLSRV_DESCRIPTORS_H

#include <stdint.h>

#include "worker/worker.h"

typedef struct {
    uint64_t usual; /* the soft limit, before it was raised */
    bool raised;
} Descriptors;

void descriptors_init(Descriptors *d);

/* A connection's descriptor has been received: the number that it has from now
 * on. */
int descriptors_place(Worker *w, int fd);
/* So many connections are left. */
void descriptors_left(Worker *w, uint32_t live);
/* Have the usual limit again; async-signal-safe. */
void descriptors_restore(Descriptors *d);

#endif
