/* Connections that the application takes over, to speak another protocol on
 * them.
 *
 * Whose is what. The connection stays with the worker: its place, its
 * descriptor, its end. The application gets a descriptor of its own, which it
 * closes when it likes. From then on the server neither receives nor sends on
 * the connection, until the application's call returns; then it ends our side,
 * lingers, and shuts the connection down for all who hold it.
 *
 * The thread that is in the call is not there for anybody else, for hours
 * perhaps: so one thread at least never gets into such a call, no time limit
 * holds for it, and what is judged by how long calls take leaves it out.
 */
#ifndef POOLSRV_UPGRADE_H
#define POOLSRV_UPGRADE_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/worker.h"

extern const char upgrade_refused[];

/* How many connections may be taken over at a time. */
uint32_t upgrade_limit(const Worker *w);
/* Is this a request for WebSockets that must be refused, because so many are
 * taken over? What asks for other protocols is mostly content without. */
bool upgrade_is_refused(const Worker *w, const Request *r);

/* From the application's call: it takes the connection over. A descriptor of
 * its own; -1 and errno, EDQUOT if too many are taken over. */
int upgrade_take(Thread *t, Conn *c);
/* The call has returned. */
void upgrade_end(Thread *t);

/* The worker ends: applications read the end of their connections. */
void upgrade_drain(Worker *w);
/* In a child that the application has forked: it has none of the connections.
 * What has the descriptors there, and will close them, keeps the numbers. */
void upgrade_leave(Worker *w);

#endif
