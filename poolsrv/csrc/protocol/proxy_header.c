/* The PROXY protocol: see proxy_header.h. */
#include "protocol/proxy_header.h"

#include <arpa/inet.h>
#include <string.h>

#include "protocol/lex.h"
#include "protocol/tls_names.h"

/* ------------------------------------------------------------------------
 * Version 1: "PROXY" SP "TCP4" SP source SP destination SP port SP port CRLF */

#define V1_LONGEST 107 /* with CRLF, by the specification */
#define V1_WORDS 6

/* Addresses as inet_ntop writes them, ports without leading zeros: what
 * another reader could take for something else is refused. */
static bool
read_end(Address *end, uint8_t family, const char *host, const char *port)
{
    uint8_t bytes[16];
    const size_t digits = strlen(port);
    const int64_t number = digits > 5 ? -1 : http1_decimal(port, digits);
    if (inet_pton(family, host, bytes) != 1 || number < 0 ||
        number > UINT16_MAX || (port[0] == '0' && digits > 1)) {
        return false;
    }
    *end = address_of(family, bytes, (uint16_t)number);
    return true;
}

static ProxyResult
parse_v1(const char *bytes, size_t size, size_t *length, ProxyHeader *header)
{
    char line[V1_LONGEST];
    char *words[V1_WORDS], *rest = line;
    Address destination;
    uint8_t family;
    int count = 0;
    const size_t room = size < V1_LONGEST ? size : V1_LONGEST;
    const char *lf = memchr(bytes, '\n', room);

    if (lf == NULL) {
        return room == V1_LONGEST ? PROXY_BAD : PROXY_PARTIAL;
    }
    *length = (size_t)(lf - bytes) + 1;
    if (lf[-1] != '\r' || memchr(bytes, '\0', *length)) {
        return PROXY_BAD;
    }
    memcpy(line, bytes, *length);
    line[*length - 2] = '\0';
    while (rest && count < V1_WORDS) {
        words[count++] = rest;
        rest = strchr(rest, ' ');
        if (rest) {
            *rest++ = '\0';
        }
    }
    /* What follows UNKNOWN is to be ignored. */
    if (count >= 2 && strcmp(words[1], "UNKNOWN") == 0) {
        header->client = (Address){.family = AF_UNSPEC};
        return PROXY_DONE;
    }
    if (count != V1_WORDS || rest) {
        return PROXY_BAD;
    }
    if (strcmp(words[1], "TCP4") == 0) {
        family = AF_INET;
    } else if (strcmp(words[1], "TCP6") == 0) {
        family = AF_INET6;
    } else {
        return PROXY_BAD;
    }
    if (!read_end(&destination, family, words[3], words[5]) ||
        !read_end(&header->client, family, words[2], words[4])) {
        return PROXY_BAD;
    }
    header->port = destination.port;
    return PROXY_DONE;
}

/* ------------------------------------------------------------------------
 * Version 2: signature, version and command, family and transport, length of
 * what follows (addresses, then records: type, length, value) */

#define V2_HEAD 16
#define V2_LOCAL 0x20
#define V2_PROXY 0x21

/* The name that the client has asked TLS for (0x02) is left alone: Host says
 * what it asks of us, and on one connection that may be several names. */
#define RECORD_TLS 0x20
#define RECORD_TLS_VERSION 0x21
#define RECORD_TLS_CIPHER 0x23
/* Of the TLS record's first byte. */
#define CLIENT_SPEAKS_TLS 1
#define CLIENT_HAS_CERTIFICATE 6 /* on this connection, or in this session */
#define TLS_RECORD_HEAD 5        /* that byte, and the result of verifying */

typedef struct {
    uint8_t type;
    size_t size;
    const uint8_t *value;
} Record;

/* The record at *bytes, which is moved behind it; false: it is cut. */
static bool
next_record(const uint8_t **bytes, size_t *left, Record *record)
{
    const uint8_t *at = *bytes;
    if (*left < 3) {
        return false;
    }
    *record = (Record){
        .type = at[0], .size = (size_t)(at[1] << 8 | at[2]), .value = at + 3};
    if (record->size > *left - 3) {
        return false;
    }
    *bytes += 3 + record->size;
    *left -= 3 + record->size;
    return true;
}

static TlsVerified
read_verified(const uint8_t *head)
{
    if (!(head[0] & CLIENT_HAS_CERTIFICATE)) {
        return TLS_NO_CERTIFICATE;
    }
    return head[1] | head[2] | head[3] | head[4] ? TLS_BAD_CERTIFICATE
                                                 : TLS_GOOD_CERTIFICATE;
}

static bool
read_tls(const Record *tls, TlsNote *note)
{
    if (tls->size < TLS_RECORD_HEAD) {
        return false;
    }
    const uint8_t *bytes = tls->value + TLS_RECORD_HEAD;
    size_t left = tls->size - TLS_RECORD_HEAD;
    Record inner;
    *note = (TlsNote){.version = TLS_OTHER,
                      .verified = read_verified(tls->value) & 0xf};
    while (left) {
        if (!next_record(&bytes, &left, &inner)) {
            return false;
        }
        const char *name = (const char *)inner.value;
        if (inner.type == RECORD_TLS_VERSION) {
            note->version = tls_version(name, inner.size) & 15u;
        } else if (inner.type == RECORD_TLS_CIPHER) {
            note->cipher = tls_cipher(name, inner.size);
        }
    }
    if (!(tls->value[0] & CLIENT_SPEAKS_TLS)) {
        *note = (TlsNote){0};
    }
    return true;
}

/* Of all records, only that of TLS is of use to us. If one is cut short, or
 * there are two that could contradict each other, nothing is known of TLS. */
static TlsNote
read_records(const uint8_t *bytes, size_t left)
{
    TlsNote note = {0};
    Record record;
    bool seen = false;
    while (left) {
        if (!next_record(&bytes, &left, &record)) {
            return (TlsNote){0};
        }
        if (record.type == RECORD_TLS) {
            if (seen || !read_tls(&record, &note)) {
                return (TlsNote){0};
            }
            seen = true;
        }
    }
    return note;
}

static uint16_t
port_at(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static ProxyResult
parse_v2(const char *bytes, size_t size, size_t *length, ProxyHeader *header)
{
    const uint8_t *head = (const uint8_t *)bytes;
    const uint8_t *source = head + V2_HEAD;
    uint16_t room;
    size_t used;

    if (size < V2_HEAD) {
        return PROXY_PARTIAL;
    }
    room = (uint16_t)(head[14] << 8 | head[15]);
    *length = V2_HEAD + (size_t)room;
    if ((head[12] != V2_LOCAL && head[12] != V2_PROXY) ||
        *length > PROXY_LONGEST) {
        return PROXY_BAD;
    }
    if (size < *length) {
        return PROXY_PARTIAL;
    }
    if (head[12] == V2_LOCAL) {
        return PROXY_DONE;
    }
    switch (head[13]) {
    case 0x11: /* TCP over IPv4: two addresses, two ports */
        used = 12;
        break;
    case 0x21: /* TCP over IPv6 */
        used = 36;
        break;
    case 0x31: /* Unix stream: two paths of 108 bytes, of the proxy's machine */
        used = 216;
        break;
    case 0x00:
        used = 0;
        break;
    default: /* datagrams do not carry HTTP/1 */
        return PROXY_BAD;
    }
    if (room < used) {
        return PROXY_BAD;
    }
    header->tls = read_records(source + used, room - used);
    header->client = (Address){.family = AF_UNSPEC};
    if (head[13] == 0x11) {
        header->client = address_of(AF_INET, source, port_at(source + 8));
        header->port = port_at(source + 10);
    } else if (head[13] == 0x21) {
        header->client = address_of(AF_INET6, source, port_at(source + 32));
        header->port = port_at(source + 34);
    }
    return PROXY_DONE;
}

/* Do the bytes start as `mark` does, as far as both go? */
static bool
starts(const char *bytes, size_t size, const char *mark, size_t mark_size)
{
    return memcmp(bytes, mark, size < mark_size ? size : mark_size) == 0;
}

ProxyResult
proxy_header_parse(const char *bytes, size_t size, size_t *length,
                   ProxyHeader *header)
{
    static const char v1[] = "PROXY ";
    static const char v2[] = "\r\n\r\n\0\r\nQUIT\n";

    *length = 0;
    if (starts(bytes, size, v1, sizeof v1 - 1)) {
        return parse_v1(bytes, size, length, header);
    }
    if (starts(bytes, size, v2, sizeof v2 - 1)) {
        return parse_v2(bytes, size, length, header);
    }
    return PROXY_BAD;
}
