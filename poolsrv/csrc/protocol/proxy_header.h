/* The PROXY protocol, versions 1 and 2: what a proxy says of its client before
 * the first byte of the client's own. HAProxy's doc/proxy-protocol.txt.
 *
 * Pure C, without state: each call looks at the header from its start, so the
 * answer is the same wherever the bytes were split.
 */
#ifndef POOLSRV_PROXY_H
#define POOLSRV_PROXY_H

#include "common/address.h"
#include "common/tls_note.h"

/* A header with more than this (TLVs of version 2 may claim 64 KiB) is
 * refused. Usual ones have 28 to 107 bytes, with TLVs some hundred. */
#define PROXY_LONGEST 4096

typedef enum {
    PROXY_DONE,
    PROXY_PARTIAL, /* more bytes are needed */
    PROXY_BAD,     /* it is no such header */
} ProxyResult;

/* What it says. */
typedef struct {
    Address client; /* AF_UNSPEC: the proxy knows no Internet address */
    uint16_t port;  /* that the client asked; 0: not said */
    TlsNote tls;    /* of the client's connection to the proxy */
} ProxyHeader;

/* Read the header at the start of `bytes`. When it is done, `*length` bytes
 * were its, and `*header` is who is behind the proxy (UNKNOWN and AF_UNIX: no
 * address); it is left as it is if the proxy speaks for itself (LOCAL). */
ProxyResult proxy_header_parse(const char *bytes, size_t size, size_t *length,
                               ProxyHeader *header);

#endif
