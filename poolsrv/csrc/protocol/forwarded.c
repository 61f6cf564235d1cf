/* Fields of proxies: see forwarded.h. */
#include "protocol/forwarded.h"

#include <string.h>

#include "protocol/address_text.h"
#include "protocol/field_list.h"
#include "protocol/lex.h"

/* The field of the X-Forwarded family that says a part. */
static const Http1FieldId x_fields[FORWARDED_PART_COUNT] = {
    [FORWARDED_FOR] = HTTP1_X_FORWARDED_FOR,
    [FORWARDED_PROTO] = HTTP1_X_FORWARDED_PROTO,
    [FORWARDED_HOST] = HTTP1_X_FORWARDED_HOST,
    [FORWARDED_PORT] = HTTP1_X_FORWARDED_PORT,
    [FORWARDED_PREFIX] = HTTP1_X_FORWARDED_PREFIX,
};

uint64_t
forwarded_fields(ForwardedFamily family, uint32_t parts)
{
    uint64_t fields = 0;
    switch (family) {
    case FORWARDED_X:
        for (uint32_t i = 0; i < FORWARDED_PART_COUNT; i++) {
            if (parts & FORWARDED_BIT(i)) {
                fields |= HTTP1_BIT(x_fields[i]);
            }
        }
        return fields;
    case FORWARDED_STANDARD:
        return HTTP1_BIT(HTTP1_FORWARDED);
    case FORWARDED_OFF:
        break;
    }
    return 0;
}

/* ------------------------------------------------------------------------
 * Values */

static const char *
scheme_of(const char *base, Http1Span text)
{
    if (http1_is_word(base + text.at, text.len, "https")) {
        return "https";
    }
    return http1_is_word(base + text.at, text.len, "http") ? "http" : NULL;
}

static Http1Span
host_of(const char *base, Http1Span text)
{
    return http1_is_host(base + text.at, text.len) ? text : (Http1Span){0};
}

static uint16_t
port_of(const char *base, Http1Span text)
{
    const int64_t port = http1_decimal(base + text.at, text.len);
    return port > 0 && port <= UINT16_MAX ? (uint16_t)port : 0;
}

/* It ends up in links that the application makes: of plain characters only,
 * and without `//`, which would name another host. */
static Http1Span
prefix_of(const char *base, Http1Span text)
{
    const char *prefix = base + text.at;
    uint32_t i;

    while (text.len > 0 && prefix[text.len - 1] == '/') {
        text.len--;
    }
    if (text.len > 0 && prefix[0] != '/') {
        return (Http1Span){0};
    }
    for (i = 0; i < text.len; i++) {
        if (prefix[i] == '/' ? i > 0 && prefix[i - 1] == '/'
                             : !is(prefix[i], REG_NAME)) {
            return (Http1Span){0};
        }
    }
    return text;
}

/* The next hop to the client. False: the walk ends here. */
static bool
step(Forwarded *said, const char *node, size_t size, const Networks *trusted)
{
    Address next;
    if (!address_text_parse(&next, node, size) || next.family == AF_UNSPEC) {
        said->unnamed = true;
        return false;
    }
    said->client = next;
    return address_within(&next, trusted);
}

/* ------------------------------------------------------------------------
 * X-Forwarded-* */

/* What the proxy said that many hops away. Proxies that do not append but
 * replace leave a shorter list: then its first member. */
static Http1Span
at_hop(const Http1Head *head, const char *base, Http1FieldId id, uint32_t hops)
{
    FieldList list = field_list_open(head, base, id);
    Http1Span member = {0};
    while (hops-- > 0 && field_list_previous(&list, &member))
        ;
    return member;
}

static void
read_x(Forwarded *said, uint32_t parts, const Http1Head *head, const char *base,
       const Networks *trusted)
{
    FieldList list = field_list_open(head, base, HTTP1_X_FORWARDED_FOR);
    Http1Span node, spans[FORWARDED_PART_COUNT] = {{0, 0}};
    uint32_t hops = 0;

    while ((parts & FORWARDED_BIT(FORWARDED_FOR)) &&
           field_list_previous(&list, &node)) {
        hops++;
        if (!step(said, base + node.at, node.len, trusted)) {
            break;
        }
    }
    if (hops == 0) {
        hops = 1;
    }
    for (uint32_t i = FORWARDED_PROTO; i < FORWARDED_PART_COUNT; i++) {
        if (parts & FORWARDED_BIT(i)) {
            spans[i] = at_hop(head, base, x_fields[i], hops);
        }
    }
    said->scheme = scheme_of(base, spans[FORWARDED_PROTO]);
    said->host = host_of(base, spans[FORWARDED_HOST]);
    said->port = port_of(base, spans[FORWARDED_PORT]);
    said->prefix = prefix_of(base, spans[FORWARDED_PREFIX]);
}

/* ------------------------------------------------------------------------
 * Forwarded, RFC 7239 section 4 */

typedef struct {
    Http1Span node; /* of `for` */
    Http1Span proto;
    Http1Span host;
} Element;

static uint32_t
skip_space(const char *base, uint32_t i, uint32_t end)
{
    while (i < end && is_space(base[i])) {
        i++;
    }
    return i;
}

/* token "=" (token | quoted-string), from *at on, which moves behind it. An
 * address without its quotes is taken, too: its colons and brackets cannot be
 * mistaken. */
static bool
read_pair(const char *base, uint32_t *at, uint32_t end, Http1Span *name,
          Http1Span *value)
{
    uint32_t i = *at;
    name->at = i;
    while (i < end && is(base[i], TCHAR)) {
        i++;
    }
    name->len = i - name->at;
    if (name->len == 0 || i == end || base[i++] != '=') {
        return false;
    }
    value->at = i;
    if (i < end && base[i] == '"') {
        value->at = ++i;
        while (i < end && base[i] != '"') {
            i += base[i] == '\\' ? 2 : 1;
        }
        if (i >= end) {
            return false;
        }
        value->len = i++ - value->at;
    } else {
        while (i < end && (is(base[i], TCHAR | AUTHORITY)) && base[i] != ';') {
            i++;
        }
        value->len = i - value->at;
    }
    *at = i;
    return true;
}

static bool
read_element(const char *base, Http1Span text, Element *element)
{
    const uint32_t end = text.at + text.len;
    uint32_t i = text.at;

    *element = (Element){0};
    for (;;) {
        Http1Span name, value, *place = NULL;
        i = skip_space(base, i, end);
        if (i < end && base[i] != ';') {
            if (!read_pair(base, &i, end, &name, &value)) {
                return false;
            }
            if (http1_is_word(base + name.at, name.len, "for")) {
                place = &element->node;
            } else if (http1_is_word(base + name.at, name.len, "proto")) {
                place = &element->proto;
            } else if (http1_is_word(base + name.at, name.len, "host")) {
                place = &element->host;
            }
            if (place && place->at) { /* no parameter may stand twice */
                return false;
            }
            if (place) {
                *place = value;
            }
            i = skip_space(base, i, end);
        }
        if (i == end) {
            return true;
        }
        if (base[i++] != ';') {
            return false;
        }
    }
}

static void
read_standard(Forwarded *said, uint32_t parts, const Http1Head *head,
              const char *base, const Networks *trusted)
{
    FieldList list = field_list_open(head, base, HTTP1_FORWARDED);
    Http1Span text;
    Element element;

    while (field_list_previous(&list, &text)) {
        if (!read_element(base, text, &element)) {
            said->unnamed = (parts & FORWARDED_BIT(FORWARDED_FOR)) != 0;
            return;
        }
        if (parts & FORWARDED_BIT(FORWARDED_PROTO)) {
            said->scheme = scheme_of(base, element.proto);
        }
        if (parts & FORWARDED_BIT(FORWARDED_HOST)) {
            said->host = host_of(base, element.host);
        }
        const bool says_whom = element.node.at != 0;
        if (!(parts & FORWARDED_BIT(FORWARDED_FOR)) || !says_whom ||
            !step(said, base + element.node.at, element.node.len, trusted)) {
            return;
        }
    }
}

/* ------------------------------------------------------------------------
 * Together */

/* The name in name[:port], and the port, 0 if there is none. */
static uint32_t
name_len(const char *base, Http1Span host, uint16_t *port)
{
    const char *text = base + host.at;
    uint32_t i = host.len;
    while (i > 0 && is_digit(text[i - 1])) {
        i--;
    }
    *port = 0;
    /* A colon in brackets has a bracket behind it, not digits and the end. */
    if (i == 0 || text[i - 1] != ':') {
        return host.len;
    }
    *port = port_of(base, (Http1Span){host.at + i, host.len - i});
    return i - 1;
}

/* Scheme, host and port must make one URL. The port that stands in the host
 * is what the client typed, so it wins. */
static void
settle(Forwarded *said, const Http1Head *head, const char *base)
{
    const bool https = said->scheme && strcmp(said->scheme, "https") == 0;
    const uint16_t usual = https ? 443 : 80;
    uint16_t in_host;

    /* The usual port of the other scheme is not the client's: a proxy in the
     * middle speaks of itself. */
    if (said->port == (https ? 80 : 443)) {
        said->port = 0;
    }
    said->renamed = said->host.len > 0;
    if (!said->renamed && !said->scheme && !said->port) {
        return;
    }
    if (!said->renamed) {
        said->host = head->host;
    }
    said->name_len = name_len(base, said->host, &in_host);
    if (in_host) {
        said->port = in_host;
    } else if (!said->port) {
        said->port = usual;
    }
    said->port_missing = said->host.len > 0 && !in_host && said->port != usual;
}

void
forwarded_read(Forwarded *said, ForwardedFamily family, uint32_t parts,
               const Http1Head *head, const char *base, const Networks *trusted,
               const Address *peer)
{
    *said = (Forwarded){.client = *peer};
    switch (family) {
    case FORWARDED_X:
        read_x(said, parts, head, base, trusted);
        break;
    case FORWARDED_STANDARD:
        read_standard(said, parts, head, base, trusted);
        break;
    case FORWARDED_OFF:
        return;
    }
    settle(said, head, base);
}
