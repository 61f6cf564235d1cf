/* What trusted proxies say of a request in its fields: who sent it, and what
 * was asked for. X-Forwarded-*, or Forwarded (RFC 7239).
 *
 * Pure C. Lists are read from the right, where the nearest proxy wrote, and no
 * further than to the first address that is not a trusted proxy's: that is the
 * client, and what stands left of it the client may have made up. So no byte
 * of that part has any influence.
 *
 * Whose peer is trusted the caller has found out. A trusted proxy must set or
 * remove each field of the family itself; the fields of the other family, and
 * all other names for the same facts, are believed from nobody.
 */
#ifndef POOLSRV_FORWARDED_H
#define POOLSRV_FORWARDED_H

#include "common/address.h"
#include "common/options.h"
#include "protocol/http1.h"

/* A set of parts is a word. */
#define FORWARDED_BIT(part) (1u << (part))
#define FORWARDED_ALL (FORWARDED_BIT(FORWARDED_PART_COUNT) - 1)

/* The fields of a family that say these parts, HTTP1_BIT each. */
uint64_t forwarded_fields(ForwardedFamily family, uint32_t parts);

/* All fields that speak for a client, of every family and of none. */
#define FORWARDED_ANY                                                          \
    (HTTP1_BIT(HTTP1_FORWARDED) | HTTP1_BIT(HTTP1_X_FORWARDED_FOR) |           \
     HTTP1_BIT(HTTP1_X_FORWARDED_PROTO) | HTTP1_BIT(HTTP1_X_FORWARDED_HOST) |  \
     HTTP1_BIT(HTTP1_X_FORWARDED_PORT) | HTTP1_BIT(HTTP1_X_FORWARDED_PREFIX) | \
     HTTP1_BIT(HTTP1_SYNONYM))

/* Spans count as the head's do; one without length was not said. */
typedef struct {
    Address client;
    bool unnamed;       /* behind it is one whom a proxy does not name */
    const char *scheme; /* "http" or "https"; NULL: not said */
    Http1Span host;     /* name[:port] that the client asked for */
    uint32_t name_len;  /* of the name in `host` */
    uint16_t port;      /* that the client asked; 0: not said */
    bool port_missing;  /* in `host`: it must become name:port */
    bool renamed;       /* `host` was said, not taken from the head */
    Http1Span prefix;   /* of all paths; starts with a slash, ends with none */
} Forwarded;

/* Judge a complete head. What is malformed counts as not said; of the
 * client's address the nearest hop that is known remains, at least `peer`; so
 * it does where a proxy hides the next one or does not know it. What is not
 * among `parts` is not read. */
void forwarded_read(Forwarded *said, ForwardedFamily family, uint32_t parts,
                    const Http1Head *head, const char *base,
                    const Networks *trusted, const Address *peer);

#endif
