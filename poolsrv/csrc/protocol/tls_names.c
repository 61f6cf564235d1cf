/* Names of TLS: see tls_names.h. */
#include "protocol/tls_names.h"

#include <stdbool.h>
#include <string.h>

/* Suites that servers and clients agree on today, or did lately. What is not
 * here is not known to the application. */
static const char *const ciphers[] = {
    NULL,
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES256-CCM8",
    "ECDHE-ECDSA-AES256-CCM",
    "DHE-RSA-AES256-CCM8",
    "DHE-RSA-AES256-CCM",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-CCM8",
    "ECDHE-ECDSA-AES128-CCM",
    "DHE-RSA-AES128-CCM8",
    "DHE-RSA-AES128-CCM",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
    "DHE-RSA-AES256-SHA256",
    "ECDHE-ECDSA-CAMELLIA256-SHA384",
    "ECDHE-RSA-CAMELLIA256-SHA384",
    "DHE-RSA-CAMELLIA256-SHA256",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "DHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-CAMELLIA128-SHA256",
    "ECDHE-RSA-CAMELLIA128-SHA256",
    "DHE-RSA-CAMELLIA128-SHA256",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "DHE-RSA-AES256-SHA",
    "DHE-RSA-CAMELLIA256-SHA",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "DHE-RSA-AES128-SHA",
    "DHE-RSA-CAMELLIA128-SHA",
    "AES256-GCM-SHA384",
    "AES256-CCM8",
    "AES256-CCM",
    "AES128-GCM-SHA256",
    "AES128-CCM8",
    "AES128-CCM",
    "AES256-SHA256",
    "CAMELLIA256-SHA256",
    "AES128-SHA256",
    "CAMELLIA128-SHA256",
    "AES256-SHA",
    "CAMELLIA256-SHA",
    "AES128-SHA",
    "CAMELLIA128-SHA",
    "DES-CBC3-SHA",
};
_Static_assert(sizeof ciphers / sizeof ciphers[0] <= UINT8_MAX, "a byte each");

static const char *const versions[TLS_VERSION_COUNT] = {
#define X(name, text) [name] = text,
    TLS_VERSIONS(X)
#undef X
};

static bool
is_same(const char *name, const char *text, size_t size)
{
    return name && strlen(name) == size && memcmp(name, text, size) == 0;
}

uint8_t
tls_version(const char *name, size_t size)
{
    for (uint8_t i = TLS_OTHER + 1; i < TLS_VERSION_COUNT; i++) {
        if (is_same(versions[i], name, size)) {
            return i;
        }
    }
    return TLS_OTHER;
}

const char *
tls_version_name(uint8_t version)
{
    return version < TLS_VERSION_COUNT ? versions[version] : NULL;
}

uint8_t
tls_cipher(const char *name, size_t size)
{
    for (uint8_t i = 1; i < sizeof ciphers / sizeof ciphers[0]; i++) {
        if (is_same(ciphers[i], name, size)) {
            return i;
        }
    }
    return 0;
}

const char *
tls_cipher_name(uint8_t cipher)
{
    return cipher < sizeof ciphers / sizeof ciphers[0] ? ciphers[cipher] : NULL;
}
