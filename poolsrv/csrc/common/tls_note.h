/* What a proxy says of its client's TLS, small enough to travel with the
 * connection from process to process. tls_names.h gives the names. */
#ifndef POOLSRV_TLS_NOTE_H
#define POOLSRV_TLS_NOTE_H

#include <stdint.h>

typedef struct {
    uint8_t version : 4;  /* a TlsVersion; TLS_NONE: all is zero */
    uint8_t verified : 4; /* a TlsVerified */
    uint8_t cipher;       /* its place among the names; 0: not known */
} TlsNote;

/* Of the client's certificate. */
typedef enum {
    TLS_NO_CERTIFICATE,   /* it has sent none */
    TLS_GOOD_CERTIFICATE, /* the proxy has verified it */
    TLS_BAD_CERTIFICATE,  /* it is not valid, and the proxy went on */
} TlsVerified;

#endif
