/* Any bytes as the fields of proxies: results lie in the head and are what
 * they say, and what stands left of the client changes nothing. */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "protocol/forwarded.h"
#include "protocol/lex.h"
#include "protocol/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const Network proxies[] = {{.bytes = {10}, .family = 2, .bits = 8}};
static const Networks trusted = {.items = proxies, .count = 1};
static const Address peer = {.bytes = {10, 9, 9, 9}, .port = 9, .family = 2};

static bool
same(const Address *a, const Address *b)
{
    return a->family == b->family && a->port == b->port &&
           memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static void
check(const Forwarded *said, const Http1Head *head, const char *bytes)
{
    const Http1Span host = said->host, prefix = said->prefix;
    CHECK(host.len <= head->length && host.at <= head->length - host.len);
    CHECK(prefix.len <= head->length && prefix.at <= head->length - prefix.len);
    CHECK(said->name_len <= host.len);
    CHECK(host.len == 0 || http1_is_host(bytes + host.at, host.len));
    CHECK(!said->port_missing || (said->port > 0 && said->name_len > 0));
    CHECK(prefix.len == 0 || (bytes[prefix.at] == '/' &&
                              bytes[prefix.at + prefix.len - 1] != '/'));
    CHECK(said->scheme == NULL || strncmp(said->scheme, "http", 4) == 0);
}

/* False: with these fields it is no head. */
static bool
read_fields(Forwarded *said, ForwardedFamily family, const char *name,
            const char *made_up, const char *fields, size_t size)
{
    Http1Field places[100];
    Http1Head head;
    Text text = {0};

    text_print(&text, "GET / HTTP/1.1\r\nHost: own:8000\r\n%s%s", name,
               made_up);
    text_add(&text, fields, size);
    text_add(&text, "\r\n\r\n", 4);
    http1_head_init(&head, places);
    const bool good = http1_head_parse(&head, &message_limits, text.bytes,
                                       text.size) == HTTP1_DONE;
    if (good) {
        forwarded_read(said, family, FORWARDED_ALL, &head, text.bytes, &trusted,
                       &peer);
        check(said, &head, text.bytes);
    }
    free(text.bytes);
    return good;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        ForwardedFamily family;
        const char *name;
    } all[] = {{FORWARDED_X, "X-Forwarded-For: "},
               {FORWARDED_STANDARD, "Forwarded: "}};
    static const char *const made_ups[] = {
        "192.0.2.66, ", "for=\"192.0.2.66, ", "for=\"\\\\\", \", ", "\\,",
        "x\r\nX-Forwarded-For: 192.0.2.66\r\nForwarded: for=192.0.2.66\r\n"};
    const char *fields = (const char *)data;
    Forwarded said, other;

    for (size_t i = 0; i < 2; i++) {
        /* Whole fields, then the value of one and what comes behind it. */
        read_fields(&said, all[i].family, "", "", fields, size);
        if (!read_fields(&said, all[i].family, all[i].name, "", fields, size) ||
            address_within(&said.client, &trusted)) {
            continue;
        }
        for (size_t j = 0; j < sizeof(made_ups) / sizeof(made_ups[0]); j++) {
            /* The last of them starts a field anew. */
            const bool lines = strchr(made_ups[j], '\r') != NULL;
            Text whole = {0};
            text_print(&whole, "%s%s", made_ups[j], lines ? all[i].name : "");
            if (read_fields(&other, all[i].family, all[i].name, whole.bytes,
                            fields, size)) {
                CHECK(same(&said.client, &other.client));
                CHECK(said.scheme == other.scheme);
            }
            free(whole.bytes);
        }
    }
    return 0;
}
