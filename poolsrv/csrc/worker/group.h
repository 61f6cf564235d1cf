/* Requests where groups of workers share listeners: each connection may bring
 * one that is another group's. */
#ifndef POOLSRV_GROUP_H
#define POOLSRV_GROUP_H

#include "worker/exchange.h"

/* The first bytes of a request should be there. Nothing of it is received
 * before it is known to be ours; what is another group's goes back unread. */
Step group_begin(Worker *w, Thread *t, Conn *c);

/* Bytes of the next request have been received, behind those of `r`. Are they
 * ours to answer? */
bool group_may_keep(const Worker *w, const Conn *c, const Request *r);

#endif
