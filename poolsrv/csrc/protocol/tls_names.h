/* Names of TLS versions and cipher suites, as OpenSSL writes them, and the
 * numbers that stand for them in a TlsNote. */
#ifndef POOLSRV_TLS_NAMES_H
#define POOLSRV_TLS_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* X(name, text) */
#define TLS_VERSIONS(X)   \
    X(TLS_1_0, "TLSv1")   \
    X(TLS_1_1, "TLSv1.1") \
    X(TLS_1_2, "TLSv1.2") \
    X(TLS_1_3, "TLSv1.3")

typedef enum {
    TLS_NONE,  /* the client speaks no TLS */
    TLS_OTHER, /* it does, of a version that is not listed */
#define X(name, text) name,
    TLS_VERSIONS(X)
#undef X
        TLS_VERSION_COUNT
} TlsVersion;

_Static_assert(TLS_VERSION_COUNT <= 16, "a TlsNote has four bits for it");

/* The version of that name; TLS_OTHER if it is not listed. */
uint8_t tls_version(const char *name, size_t size);
/* NULL: it has no name. */
const char *tls_version_name(uint8_t version);

/* The cipher suite of that name; 0 if it is not listed. */
uint8_t tls_cipher(const char *name, size_t size);
const char *tls_cipher_name(uint8_t cipher);

#endif
