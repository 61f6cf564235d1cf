/* PROXY headers: what each says, at every split, and what is none. */
#include <arpa/inet.h>
#include <string.h>

#include "check.h"
#include "protocol/proxy_header.h"
#include "protocol/tls_names.h"

/* Version 2, of so many bytes behind the first 16. */
#define V2(command, family, size) \
    "\r\n\r\n\0\r\nQUIT\n" command family "\0" size

#define PORTS "\x1f\x90\x01\xbb" /* 8080, 443 */
#define TCP4 "\xc0\0\2\1\xc6\x33\x64\2" PORTS
#define TCP6 "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
#define PATH                                                                   \
    "/run/socket\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"            \
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" \
    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

typedef struct {
    const char *bytes;
    size_t size;
    const char *client; /* "-": not known, "=": as it was; NULL: malformed */
    uint16_t port;
    TlsNote tls;
} Given;

#define GIVEN(bytes, client, port) {bytes, sizeof(bytes) - 1, client, port, {0}}
/* Over TCP4, with so many bytes of records; and what they say of TLS. */
#define TLS(size, records, ...)                                          \
    {                                                                    \
        V2("\x21", "\x11", size)                                         \
        TCP4 records, sizeof(V2("\x21", "\x11", size) TCP4 records) - 1, \
            "192.0.2.1", 8080,                                           \
        {                                                                \
            __VA_ARGS__                                                  \
        }                                                                \
    }

static const Given givens[] = {
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n", "192.0.2.1", 8080),
    GIVEN("PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n", "2001:db8::1",
          65535),
    GIVEN("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", "192.0.2.1",
          1),
    GIVEN("PROXY UNKNOWN\r\n", "-", 0),
    GIVEN("PROXY UNKNOWN any thing at all in here or not\r\n", "-", 0),
    GIVEN("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
          "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 8080\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443 1\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443 \r\n", NULL, 0),
    GIVEN("PROXY TCP4  192.0.2.1 198.51.100.2 8080 443\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 8080 65536\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 +80 443\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 080 443\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.01 198.51.100.2 80 443\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2 198.51.100.2 80 443\r\n", NULL, 0),
    GIVEN("PROXY TCP4 192.0.2.1\0 198.51.100.2 80 443\r\n", NULL, 0),
    GIVEN("PROXY TCP4 2001:db8::1 2001:db8::2 80 443\r\n", NULL, 0),
    GIVEN("PROXY TCP6 192.0.2.1 198.51.100.2 80 443\r\n", NULL, 0),
    GIVEN("PROXY TCP5 192.0.2.1 198.51.100.2 80 443\r\n", NULL, 0),
    GIVEN("PROXY UNKNOWNS\r\n", NULL, 0),
    GIVEN("PROXY  UNKNOWN\r\n", NULL, 0),
    GIVEN("PROXY\r\n", NULL, 0),
    GIVEN("PROXY \r\n", NULL, 0),
    GIVEN("proxy TCP4 192.0.2.1 198.51.100.2 8080 443\r\n", NULL, 0),
    GIVEN(" PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n", NULL, 0),
    /* One byte more than a line may have. */
    GIVEN("PROXY UNKNOWN 4567890123456789012345678901234567890123456789012345"
          "6789012345678901234567890123456789012345\r\n",
          NULL, 0),
    GIVEN("PROXY / HTTP/1.1\r\nHost: a\r\n\r\n", NULL, 0),
    GIVEN("GET / HTTP/1.1\r\nHost: a\r\n\r\n", NULL, 0),

    GIVEN(V2("\x21", "\x11", "\x0c") TCP4, "192.0.2.1", 8080),
    GIVEN(V2("\x21", "\x21", "\x24") TCP6 TCP6 PORTS, "2001:db8::1", 8080),
    /* Type, length and value behind the addresses, even cut short. */
    GIVEN(V2("\x21", "\x11", "\x13") TCP4 "\x02\0\x04name", "192.0.2.1", 8080),
    GIVEN(V2("\x21", "\x11", "\x0d") TCP4 "\xff", "192.0.2.1", 8080),
    /* flags, result of verifying, then version and cipher */
    TLS("\x14", "\x20\0\x05\1\0\0\0\0", .version = TLS_OTHER),
    TLS("\x1e", "\x20\0\x0f\1\0\0\0\0\x21\0\7TLSv1.3", .version = TLS_1_3),
    TLS("\x1c", "\x20\0\x0d\1\0\0\0\0\x21\0\5TLSv1", .version = TLS_1_0),
    TLS("\x1b", "\x20\0\x0c\1\0\0\0\0\x21\0\4what", .version = TLS_OTHER),
    TLS("\x2d", "\x20\0\x1e\1\0\0\0\0\x23\0\x16TLS_AES_128_GCM_SHA256",
        .version = TLS_OTHER, .cipher = 3),
    TLS("\x1b", "\x20\0\x0c\1\0\0\0\0\x23\0\4none", .version = TLS_OTHER),
    /* A certificate: good, expired (10), with an error beyond a byte. */
    TLS("\x14", "\x20\0\x05\3\0\0\0\0", .version = TLS_OTHER,
        .verified = TLS_GOOD_CERTIFICATE),
    TLS("\x14", "\x20\0\x05\5\0\0\0\x0a", .version = TLS_OTHER,
        .verified = TLS_BAD_CERTIFICATE),
    TLS("\x14", "\x20\0\x05\3\0\0\1\0", .version = TLS_OTHER,
        .verified = TLS_BAD_CERTIFICATE),
    /* No certificate: nothing was verified, whatever stands there. */
    TLS("\x14", "\x20\0\x05\1\0\0\0\0", .version = TLS_OTHER),
    /* The client speaks no TLS; cut short; twice; cut short inside. */
    TLS("\x14", "\x20\0\x05\0\0\0\0\0", 0),
    TLS("\x13", "\x20\0\x04\1\0\0\0", 0),
    TLS("\x13", "\x20\0\x05\1\0\0\0", 0),
    TLS("\x1c", "\x20\0\x05\1\0\0\0\0\x20\0\x05\1\0\0\0\0", 0),
    TLS("\x1a", "\x20\0\x0b\1\0\0\0\0\x21\0\4TLS", 0),
    GIVEN(V2("\x21", "\x31", "\xd8") PATH PATH, "-", 0),
    GIVEN(V2("\x21", "\0", "\0"), "-", 0),
    GIVEN(V2("\x21", "\0", "\3") "abc", "-", 0),
    GIVEN(V2("\x20", "\0", "\0"), "=", 0),
    GIVEN(V2("\x20", "\x11", "\x0c") TCP4, "=", 0),
    GIVEN(V2("\x20", "\x77", "\1") "x", "=", 0),
    GIVEN(V2("\x21", "\x11", "\x0b") TCP4, NULL, 0),
    GIVEN(V2("\x21", "\x21", "\x23") TCP6 TCP6 PORTS, NULL, 0),
    GIVEN(V2("\x21", "\x31", "\xd7") PATH PATH, NULL, 0),
    GIVEN(V2("\x21", "\x12", "\x0c") TCP4, NULL, 0), /* UDP */
    GIVEN(V2("\x21", "\x10", "\x0c") TCP4, NULL, 0),
    GIVEN(V2("\x21", "\x41", "\x0c") TCP4, NULL, 0),
    GIVEN(V2("\x22", "\x11", "\x0c") TCP4, NULL, 0),
    GIVEN(V2("\x11", "\x11", "\x0c") TCP4, NULL, 0),
    GIVEN("\r\n\r\n\0\r\nQUIT\r\x21\x11\0\x0c" TCP4, NULL, 0),
    GIVEN("\r\n\r\n\0\r\nQUIT\n\x21\x11\x10\x01" TCP4, NULL, 0), /* long */
};

/* In a block of exactly that size, so that a sanitizer sees a byte too many. */
static ProxyResult
parse(const Given *given, size_t size, size_t *length, ProxyHeader *header)
{
    char *block = malloc(size > 0 ? size : 1);
    CHECK(block != NULL);
    memcpy(block, given->bytes, size);
    const ProxyResult result = proxy_header_parse(block, size, length, header);
    free(block);
    return result;
}

static void
test_given(const Given *given)
{
    const Address before = {.bytes = {127, 0, 0, 1}, .port = 5, .family = 2};
    ProxyHeader header = {.client = before};
    const Address *client = &header.client;
    size_t length;
    const ProxyResult result = parse(given, given->size, &length, &header);

    if (given->client == NULL) {
        CHECK(result == PROXY_BAD);
    } else {
        CHECK(result == PROXY_DONE && length == given->size);
    }
    if (given->client == NULL || strcmp(given->client, "=") == 0) {
        CHECK(memcmp(client, &before, sizeof(before)) == 0);
    } else if (strcmp(given->client, "-") == 0) {
        CHECK(client->family == AF_UNSPEC && client->port == 0);
    } else {
        char text[INET6_ADDRSTRLEN];
        CHECK(inet_ntop(client->family, client->bytes, text, sizeof(text)));
        CHECK(strcmp(text, given->client) == 0 && client->port == given->port);
    }
    CHECK(memcmp(&header.tls, &given->tls, sizeof(TlsNote)) == 0);
    for (size_t size = 0; size < given->size; size++) {
        const ProxyResult part = parse(given, size, &length, &header);
        CHECK(part == PROXY_PARTIAL ||
              (part == PROXY_BAD && given->client == NULL));
    }
}

static void
test_what_follows_is_left_alone(void)
{
    static const char bytes[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\nGET";
    ProxyHeader header;
    size_t length;
    CHECK(proxy_header_parse(bytes, sizeof(bytes) - 1, &length, &header) ==
          PROXY_DONE);
    CHECK(length == strlen("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"));
}

static void
test_the_port_that_was_asked(void)
{
    static const Given all[] = {
        GIVEN("PROXY TCP4 192.0.2.1 198.51.100.2 8080 443\r\n", NULL, 443),
        GIVEN(V2("\x21", "\x11", "\x0c") TCP4, NULL, 443),
        GIVEN(V2("\x21", "\x21", "\x24") TCP6 TCP6 PORTS, NULL, 443),
        GIVEN("PROXY UNKNOWN\r\n", NULL, 0),
        GIVEN(V2("\x20", "\x11", "\x0c") TCP4, NULL, 0),
        GIVEN(V2("\x21", "\x31", "\xd8") PATH PATH, NULL, 0),
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        ProxyHeader header = {0};
        size_t length;
        CHECK(parse(&all[i], all[i].size, &length, &header) == PROXY_DONE);
        CHECK(header.port == all[i].port);
    }
}

static void
test_names(void)
{
    for (int i = 0; i <= UINT8_MAX; i++) {
        const char *cipher = tls_cipher_name((uint8_t)i);
        const char *version = tls_version_name((uint8_t)i);
        CHECK(cipher == NULL || tls_cipher(cipher, strlen(cipher)) == i);
        CHECK(version == NULL || tls_version(version, strlen(version)) == i);
    }
    CHECK(tls_cipher("AES128-SH", 9) == 0 && tls_cipher("", 0) == 0);
}

int
main(void)
{
    const size_t count = sizeof(givens) / sizeof(givens[0]);
    for (size_t i = 0; i < count; i++) {
        test_given(&givens[i]);
    }
    test_what_follows_is_left_alone();
    test_the_port_that_was_asked();
    test_names();
    printf("%zu headers\n", count);
    return 0;
}
