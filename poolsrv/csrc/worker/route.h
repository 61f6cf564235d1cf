/* Where a request goes, and who sent it: what its head says of that, and what
 * trusted proxies say instead. */
#ifndef POOLSRV_ROUTE_H
#define POOLSRV_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/mounts.h"
#include "protocol/forwarded.h"
#include "worker/worker.h"

/* Of a request whose head is complete. All is zero where there is one
 * application and no proxy is believed: this is not looked at then. */
typedef struct {
    bool found;
    bool maintenance; /* the reason of the status */
    bool elsewhere;   /* likewise: it is for another group */
    bool skips_body;  /* whoever answers never asks for the body */
    bool forwarded;   /* a trusted proxy is believed: see `said` */
    uint16_t status;  /* of the server's own answer; 0: it makes none */
    uint32_t cut;     /* so many bytes of the path, as it was sent, stand before
                       * PATH_INFO: the prefix of a proxy, and the mount's */
    const struct Handler *handler; /* who answers */
    const struct Handler *beyond; /* of a folder: who answers what is no file */
    const Mount *mount; /* NULL: there is one application, at every path */
    const char *words;  /* of the server's own answer: why */
    Forwarded said;
} Route;

/* Find r->route. With a status it is the server that answers, and the body need
 * not be read. */
void route_find(const Worker *w, const Conn *c, Request *r);

#endif
