/* Which numbers the descriptors of connections have, and the limit of open
 * files.
 *
 * The application may use select(), which knows numbers below FD_SETSIZE only,
 * and the programs that it starts inherit the soft limit, which is as low as
 * that for their sake. So a worker keeps the limit that the server was started
 * with. If it holds many connections they are put where neither select() nor
 * the application's own files reach, and only for the moment in which they come
 * the limit is as high as it may be.
 */
#ifndef POOLSRV_DESCRIPTORS_H
#define POOLSRV_DESCRIPTORS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/channel.h"
#include "worker/worker.h"

typedef struct {
    pthread_mutex_t
        lock;       /* of the rest: the main thread may poll beside another */
    uint64_t usual; /* the soft limit; while it is raised, as it was before */
    uint64_t most;  /* the hard one */
    uint32_t
        stay;    /* so many connections keep the numbers that they come with */
    bool scarce; /* a message may find no numbers below the usual limit */
    bool raised;
    bool fixed;
} Descriptors;

/* `fixed`: the limit and the numbers stay as they are. */
void descriptors_init(Descriptors *d, bool fixed);

/* Receive a message of connections, which get the numbers that they keep. As
 * channel_receive(). */
int descriptors_receive(Worker *w, ChannelMessage *m);
/* Have the usual limit again, in a child just forked; async-signal-safe. */
void descriptors_restore(Descriptors *d);
void descriptors_free(Descriptors *d);

#endif
