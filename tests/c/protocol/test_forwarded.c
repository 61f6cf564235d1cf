/* Addresses, networks, and what trusted proxies say in a head's fields. */
#include <arpa/inet.h>
#include <string.h>

#include "check.h"
#include "protocol/address_text.h"
#include "protocol/forwarded.h"
#include "protocol/message.h"

/* ------------------------------------------------------------------------
 * Addresses */

/* Whether the text is an address: this one, as inet_ntop writes it. */
static bool
reads(const char *text, const char *host, uint16_t port)
{
    char written[INET6_ADDRSTRLEN];
    Address address = {.family = AF_UNIX};
    /* Without the NUL, so that a sanitizer sees a byte too many. */
    char *block = malloc(strlen(text) + 1);
    CHECK(block != NULL);
    memcpy(block, text, strlen(text));
    const bool good = address_text_parse(&address, block, strlen(text));
    free(block);
    if (!good) {
        CHECK(address.family == AF_UNIX); /* it is left alone */
        return false;
    }
    CHECK(inet_ntop(address.family, address.bytes, written, sizeof(written)));
    return strcmp(written, host) == 0 && address.port == port;
}

static void
test_addresses(void)
{
    CHECK(reads("192.0.2.1", "192.0.2.1", 0));
    CHECK(reads("192.0.2.1:80", "192.0.2.1", 80));
    CHECK(reads("192.0.2.1:65535", "192.0.2.1", 65535));
    CHECK(reads("192.0.2.1:_hidden", "192.0.2.1", 0));
    CHECK(reads("2001:DB8::1", "2001:db8::1", 0));
    CHECK(reads("[2001:db8::1]", "2001:db8::1", 0));
    CHECK(reads("[2001:db8::1]:80", "2001:db8::1", 80));
    CHECK(reads("[2001:db8::1]:_a.b", "2001:db8::1", 0));
    CHECK(reads("::", "::", 0));
    CHECK(reads("::ffff:192.0.2.1", "192.0.2.1", 0));
    CHECK(reads("[::ffff:192.0.2.1]:80", "192.0.2.1", 80));
}

static void
test_no_addresses(void)
{
    static const char *const texts[] = {
        "",
        ":",
        ":80",
        "host",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        " 192.0.2.1",
        "192.0.2.1 ",
        "192.0.2.1:",
        "192.0.2.1:-1",
        "192.0.2.1:65536",
        "192.0.2.1:100000",
        "192.0.2.1:_",
        "192.0.2.1:_a:b",
        "[192.0.2.1]",
        "[",
        "[]",
        "[]:80",
        "[::1",
        "[::1]80",
        "[::1]:",
        "[::1]:x",
        "[[::1]]",
        "2001:db8::1::2",
        "fe80::1%eth0",
        "_",
        "_a b",
        "_a\"",
        "unknowns",
        "unknown:",
        "[unknown]",
        "2001:db8:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        CHECK(!reads(texts[i], "", 0));
    }
    Address address;
    CHECK(!address_text_parse(&address, "192.0.2.1\0", 10));
}

static void
test_addresses_that_nobody_may_know(void)
{
    static const char *const texts[] = {"unknown", "Unknown:80", "_secret",
                                        "_a.b-c_d:_port"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        Address address = {.family = AF_UNIX};
        CHECK(address_text_parse(&address, texts[i], strlen(texts[i])));
        CHECK(address.family == AF_UNSPEC && address.port == 0);
    }
}

static Address
parsed(const char *text)
{
    Address address;
    CHECK(address_text_parse(&address, text, strlen(text)));
    return address;
}

static Network
network(const char *text, uint8_t bits)
{
    const Address address = parsed(text);
    Network made = {.family = address.family, .bits = bits};
    memcpy(made.bytes, address.bytes, sizeof(made.bytes));
    return made;
}

static bool
within(const char *text, const char *net, uint8_t bits)
{
    const Network one = network(net, bits);
    const Address address = parsed(text);
    return address_within(&address, &(Networks){.items = &one, .count = 1});
}

static void
test_networks(void)
{
    CHECK(within("10.0.0.1", "10.0.0.1", 32));
    CHECK(!within("10.0.0.2", "10.0.0.1", 32));
    CHECK(within("10.255.0.1", "10.0.0.0", 8));
    CHECK(!within("11.0.0.0", "10.0.0.0", 8));
    CHECK(within("172.31.255.255", "172.16.0.0", 12));
    CHECK(!within("172.32.0.0", "172.16.0.0", 12));
    CHECK(within("255.255.255.255", "0.0.0.0", 0));
    CHECK(within("10.0.0.3", "10.0.0.2", 31));
    CHECK(!within("10.0.0.4", "10.0.0.2", 31));
    CHECK(within("2001:db8::1", "2001:db8::", 32));
    CHECK(!within("2001:db9::1", "2001:db8::", 32));
    CHECK(within("2001:db8:8000::", "2001:db8:8000::", 33));
    CHECK(!within("2001:db8::", "2001:db8:8000::", 33));
    CHECK(within("::1", "::1", 128));
    CHECK(!within("::", "::1", 128));
    /* The families are apart, but for IPv4 that came by an IPv6 socket. */
    CHECK(!within("10.0.0.1", "::", 0));
    CHECK(!within("::1", "0.0.0.0", 0));
    CHECK(within("::ffff:10.0.0.1", "10.0.0.0", 8));
}

static void
test_unix_and_unknown_peers(void)
{
    const Network items[] = {{.family = AF_UNIX}, network("::", 0)};
    const Networks all = {.items = items, .count = 2};
    const Networks none = {.items = NULL};
    CHECK(address_within(&(Address){.family = AF_UNIX}, &all));
    CHECK(!address_within(&(Address){.family = AF_UNSPEC}, &all));
    CHECK(!address_within(&(Address){.family = AF_UNIX}, &none));
}

/* ------------------------------------------------------------------------
 * Fields */

/* 10.0.0.0/8 and 2001:db8::/32 are proxies; 10.9.9.9 is the peer. */
static void
read_fields(Forwarded *said, ForwardedFamily family, Text *request)
{
    const Network items[] = {network("10.0.0.0", 8), network("2001:db8::", 32)};
    const Networks trusted = {.items = items, .count = 2};
    const Address peer = parsed("10.9.9.9:9");
    Http1Field fields[100];
    Http1Head head;
    http1_head_init(&head, fields);
    CHECK(http1_head_parse(&head, &message_limits, request->bytes,
                           request->size) == HTTP1_DONE);
    forwarded_read(said, family, FORWARDED_ALL, &head, request->bytes, &trusted,
                   &peer);
}

/* What is said, in words: client, scheme, host or name:port, port, prefix;
 * `-` for what is not. `lines` are field lines. */
static void
says(ForwardedFamily family, const char *lines, const char *wanted)
{
    Text request = {0}, words = {0};
    Forwarded said;
    char host[INET6_ADDRSTRLEN] = "nobody";

    text_print(&request, "GET / HTTP/1.1\r\nHost: own:8000\r\n%s\r\n", lines);
    read_fields(&said, family, &request);
    if (said.client.family != AF_UNSPEC) {
        CHECK(inet_ntop(said.client.family, said.client.bytes, host,
                        sizeof(host)));
    }
    text_print(&words, "%s%s", said.unnamed ? "behind " : "", host);
    if (said.client.port != 0) {
        text_print(&words, " port %u", said.client.port);
    }
    text_print(&words, ", %s", said.scheme ? said.scheme : "-");
    if (said.renamed || said.port_missing) {
        const uint32_t size = said.port_missing ? said.name_len : said.host.len;
        text_print(&words, ", %.*s", (int)size, request.bytes + said.host.at);
        if (said.port_missing) {
            text_print(&words, ":%u", said.port);
        }
    } else {
        text_print(&words, ", -");
    }
    text_print(&words, ", %u, %.*s", said.port, (int)said.prefix.len,
               request.bytes + said.prefix.at);
    if (strcmp(words.bytes, wanted) != 0) {
        fprintf(stderr, "%s\nexpected: %s\nbut it is: %s\n", lines, wanted,
                words.bytes);
        exit(1);
    }
    free(words.bytes);
    free(request.bytes);
}

#define NOTHING "10.9.9.9 port 9, -, -, 0, "

static void
test_client(void)
{
    static const struct {
        const char *value;
        const char *client;
    } all[] = {
        {"192.0.2.1", "192.0.2.1"},
        {"192.0.2.1:50", "192.0.2.1 port 50"},
        {"192.0.2.1, 10.0.0.1", "192.0.2.1"},
        {"192.0.2.1,10.0.0.1:3 , 2001:db8::5", "192.0.2.1"},
        {"192.0.2.66, 192.0.2.1", "192.0.2.1"},
        {"192.0.2.66, 192.0.2.1, 10.0.0.1", "192.0.2.1"},
        {"10.0.0.66, 192.0.2.1", "192.0.2.1"},
        {"10.0.0.1", "10.0.0.1"},
        {"10.0.0.2, 10.0.0.1", "10.0.0.2"},
        {"::1", "::1"},
        {"[::1]:50", "::1 port 50"},
        {"\" open, 192.0.2.1", "192.0.2.1"},
        {", ,192.0.2.1, ,", "192.0.2.1"},
        /* Not known, or known so far. */
        {"unknown", "behind 10.9.9.9 port 9"},
        {"192.0.2.66, Unknown, 10.0.0.1", "behind 10.0.0.1"},
        {"192.0.2.66, _secret", "behind 10.9.9.9 port 9"},
        {"192.0.2.66, garbage", "behind 10.9.9.9 port 9"},
        {"192.0.2.66, garbage, 10.0.0.1", "behind 10.0.0.1"},
        {"\"192.0.2.66\", 10.0.0.1", "behind 10.0.0.1"},
        {"", "10.9.9.9 port 9"},
        {",", "10.9.9.9 port 9"},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        Text line = {0}, wanted = {0};
        text_print(&line, "X-Forwarded-For: %s\r\n", all[i].value);
        text_print(&wanted, "%s, -, -, 0, ", all[i].client);
        says(FORWARDED_X, line.bytes, wanted.bytes);
        free(line.bytes);
        free(wanted.bytes);
    }
}

static void
test_fields_are_joined_in_order(void)
{
    says(FORWARDED_X,
         "X-Forwarded-For: 192.0.2.66\r\n"
         "X-Forwarded-For: 192.0.2.1, 10.0.0.2\r\n"
         "Accept: x\r\n"
         "x-forwarded-for: 10.0.0.1\r\n",
         "192.0.2.1, -, -, 0, ");
}

static void
test_only_the_chosen_family_is_read(void)
{
#define BOTH                         \
    "X-Forwarded-For: 192.0.2.1\r\n" \
    "Forwarded: for=192.0.2.2\r\n"
    says(FORWARDED_X, BOTH, "192.0.2.1, -, -, 0, ");
    says(FORWARDED_STANDARD, BOTH, "192.0.2.2, -, -, 0, ");
    says(FORWARDED_OFF, BOTH, NOTHING);
#undef BOTH
    CHECK(forwarded_fields(FORWARDED_OFF, FORWARDED_ALL) == 0);
    CHECK((forwarded_fields(FORWARDED_X, FORWARDED_ALL) & ~FORWARDED_ANY) == 0);
    CHECK((forwarded_fields(FORWARDED_STANDARD, FORWARDED_ALL) &
           ~FORWARDED_ANY) == 0);
    CHECK((forwarded_fields(FORWARDED_X, FORWARDED_ALL) &
           forwarded_fields(FORWARDED_STANDARD, FORWARDED_ALL)) == 0);
}

static void
test_only_the_named_parts_are_fields(void)
{
    CHECK(forwarded_fields(FORWARDED_X, 0) == 0);
    CHECK(forwarded_fields(FORWARDED_X, FORWARDED_BIT(FORWARDED_HOST)) ==
          HTTP1_BIT(HTTP1_X_FORWARDED_HOST));
    CHECK(forwarded_fields(FORWARDED_STANDARD, FORWARDED_BIT(FORWARDED_FOR)) ==
          HTTP1_BIT(HTTP1_FORWARDED));
}

static void
test_scheme_host_and_port(void)
{
#define PEER "10.9.9.9 port 9, "
    static const struct {
        const char *lines;
        const char *wanted;
    } all[] = {
        {"X-Forwarded-Proto: HTTPS\r\n", PEER "https, -, 8000, "},
        {"X-Forwarded-Proto: http\r\n", PEER "http, -, 8000, "},
        {"X-Forwarded-Proto: ftp\r\n", NOTHING},
        {"X-Forwarded-Proto: https, http\r\n", PEER "http, -, 8000, "},
        {"X-Forwarded-Host: a.example\r\n", PEER "-, a.example, 80, "},
        {"X-Forwarded-Host: a.example\r\nX-Forwarded-Proto: https\r\n",
         PEER "https, a.example, 443, "},
        {"X-Forwarded-Host: a.example:8443\r\nX-Forwarded-Proto: https\r\n",
         PEER "https, a.example:8443, 8443, "},
        {"X-Forwarded-Host: [::1]\r\nX-Forwarded-Port: 81\r\n",
         PEER "-, [::1]:81, 81, "},
        {"X-Forwarded-Host: [::1]:82\r\nX-Forwarded-Port: 81\r\n",
         PEER "-, [::1]:82, 82, "},
        {"X-Forwarded-Host: a.example:\r\nX-Forwarded-Port: 81\r\n",
         PEER "-, a.example:81, 81, "},
        {"X-Forwarded-Host: a.example\r\nX-Forwarded-Port: 80\r\n",
         PEER "-, a.example, 80, "},
        /* A proxy in the middle speaks of itself. */
        {"X-Forwarded-Host: a.example\r\nX-Forwarded-Port: 80\r\n"
         "X-Forwarded-Proto: https\r\n",
         PEER "https, a.example, 443, "},
        {"X-Forwarded-Port: 81\r\n", PEER "-, -, 8000, "},
        {"X-Forwarded-Port: 0\r\n", NOTHING},
        {"X-Forwarded-Port: 65536\r\n", NOTHING},
        {"X-Forwarded-Port: 8 1\r\n", NOTHING},
        {"X-Forwarded-Host: a b\r\n", NOTHING},
        {"X-Forwarded-Host: a/b\r\n", NOTHING},
        {"X-Forwarded-Host: user@a\r\n", NOTHING},
        {"X-Forwarded-Host: a:65536\r\n", NOTHING},
        {"X-Forwarded-Host: \"a\"\r\n", NOTHING},
        {"X-Forwarded-Host:\r\n", NOTHING},
        {"X-Forwarded-Host: made-up, a\r\n", PEER "-, a, 80, "},
        /* As far from us as the client is; a shorter list was not appended
         * to. */
        {"X-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n"
         "X-Forwarded-Host: made-up, a, b\r\nX-Forwarded-Proto: https\r\n",
         "192.0.2.1, https, a, 443, "},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        says(FORWARDED_X, all[i].lines, all[i].wanted);
    }
#undef PEER
}

static void
test_prefix(void)
{
#define PREFIX(value, wanted)                              \
    says(FORWARDED_X, "X-Forwarded-Prefix: " value "\r\n", \
         "10.9.9.9 port 9, -, -, 0, " wanted)
    PREFIX("/a", "/a");
    PREFIX("/a/", "/a");
    PREFIX("/a/b-c_d.e~1//", "/a/b-c_d.e~1");
    PREFIX("/", "");
    PREFIX("///", "");
    PREFIX("", "");
    PREFIX("a", "");
    PREFIX("//evil.example", "");
    PREFIX("/a//b", "");
    PREFIX("/a%2fb", "");
    PREFIX("/a?b", "");
    PREFIX("/a b", "");
    PREFIX("/<a>", "");
    PREFIX("/\xc3\xa9", "");
    PREFIX("/\\evil.example", "");
    PREFIX("/made-up, /a", "/a");
#undef PREFIX
}

static void
test_forwarded(void)
{
#define PEER "10.9.9.9 port 9, "
#define BEHIND "behind " PEER "-, -, 0, "
    static const struct {
        const char *value;
        const char *wanted;
    } all[] = {
        {"for=192.0.2.1", "192.0.2.1, -, -, 0, "},
        {"For=\"192.0.2.1:50\"", "192.0.2.1 port 50, -, -, 0, "},
        {"for=192.0.2.1:50", "192.0.2.1 port 50, -, -, 0, "},
        {"FOR=\"[::1]:50\";proto=https;by=203.0.113.43;host=a.example",
         "::1 port 50, https, a.example, 443, "},
        {"for=\"[::1]:_port\"", "::1, -, -, 0, "},
        {"for = 192.0.2.1", BEHIND},
        {"proto=http;host=\"a.example:81\"", PEER "http, a.example:81, 81, "},
        {"for=192.0.2.1;host=\"a b\"", "192.0.2.1, -, -, 0, "},
        {"for=192.0.2.1;host=\"a\\b\"", "192.0.2.1, -, -, 0, "},
        {"for=192.0.2.1 ; proto=https", "192.0.2.1, https, -, 8000, "},
        {";for=192.0.2.1;;", "192.0.2.1, -, -, 0, "},
        {"for=192.0.2.1;more=\"a, b; \\\" for=c\"", "192.0.2.1, -, -, 0, "},
        {"for=unknown;proto=https", "behind " PEER "https, -, 8000, "},
        {"for=\"unknown:80\"", BEHIND},
        {"for=_secret", BEHIND},
        {"for=\"_secret:_port\"", BEHIND},
        {"for=192.0.2.66, for=192.0.2.1", "192.0.2.1, -, -, 0, "},
        {"for=192.0.2.66;proto=https, for=192.0.2.1;proto=http, for=10.0.0.1",
         "192.0.2.1, http, -, 8000, "},
        /* What the client left open swallows nothing. */
        {"for=\"192.0.2.66, for=192.0.2.1", "192.0.2.1, -, -, 0, "},
        {"for=\"192.0.2.66\\, for=\"[::1]\"", "::1, -, -, 0, "},
        {"x=\"\\\\\\\", for=\"[::1]\"", "::1, -, -, 0, "},
        {"garbage, for=192.0.2.1", "192.0.2.1, -, -, 0, "},
        /* Malformed: of whom it speaks is not known. */
        {"for=192.0.2.66, for=\"10.0.0.1", BEHIND},
        {"for=192.0.2.66, for=10.0.0.2 for=10.0.0.1", BEHIND},
        {"for=192.0.2.66, for=10.0.0.2;for=10.0.0.1", BEHIND},
        {"for=192.0.2.66, for=10.0.0.1;x", BEHIND},
        {"for=192.0.2.66, =10.0.0.1", BEHIND},
        {"for=192.0.2.66, for=", BEHIND},
        {"for=192.0.2.66, for=\"\"", BEHIND},
        {"for=192.0.2.66, for=\"\\", BEHIND},
        {"for=192.0.2.66, for=x;proto=https",
         "behind " PEER "https, -, 8000, "},
        {"for=192.0.2.66, x, for=10.0.0.1;proto=https",
         "behind 10.0.0.1, https, -, 8000, "},
        {"", NOTHING},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        Text line = {0};
        text_print(&line, "Forwarded: %s\r\n", all[i].value);
        says(FORWARDED_STANDARD, line.bytes, all[i].wanted);
        free(line.bytes);
    }
    says(FORWARDED_STANDARD,
         "Forwarded: for=192.0.2.66\r\n"
         "Forwarded: for=192.0.2.1;proto=https\r\n"
         "Forwarded: for=10.0.0.1\r\n",
         "192.0.2.1, https, -, 8000, ");
#undef PEER
#undef BEHIND
}

static void
test_a_request_without_host(void)
{
    Text request = {0};
    Forwarded said;
    text_print(&request, "GET / HTTP/1.0\r\nX-Forwarded-Port: 81\r\n\r\n");
    read_fields(&said, FORWARDED_X, &request);
    CHECK(said.port == 81 && said.host.len == 0 && !said.port_missing);
    free(request.bytes);
}

int
main(void)
{
    test_addresses();
    test_no_addresses();
    test_addresses_that_nobody_may_know();
    test_networks();
    test_unix_and_unknown_peers();
    test_client();
    test_fields_are_joined_in_order();
    test_only_the_chosen_family_is_read();
    test_only_the_named_parts_are_fields();
    test_scheme_host_and_port();
    test_prefix();
    test_forwarded();
    test_a_request_without_host();
    return 0;
}
