/* Addresses as text: see address_text.h. */
#include "protocol/address_text.h"

#include <arpa/inet.h>
#include <string.h>

#include "protocol/lex.h"

/* A name that hides something, RFC 7239 section 6.3. */
static bool
is_hidden(const char *text, size_t size)
{
    size_t i = 1;
    while (i < size && is(text[i], TCHAR)) {
        i++;
    }
    return size > 1 && text[0] == '_' && i == size;
}

static bool
parse_port(uint16_t *port, const char *text, size_t size)
{
    const int64_t number = size > 5 ? -1 : http1_decimal(text, size);
    if (is_hidden(text, size)) {
        *port = 0;
        return true;
    }
    *port = (uint16_t)number;
    return number >= 0 && number <= UINT16_MAX;
}

static bool
parse_host(Address *address, uint8_t family, const char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    if (size >= sizeof host || memchr(text, '\0', size)) {
        return false;
    }
    memcpy(host, text, size);
    host[size] = '\0';
    if (inet_pton(family, host, bytes) != 1) {
        return false;
    }
    *address = address_of(family, bytes, 0);
    return true;
}

bool
address_text_parse(Address *address, const char *text, size_t size)
{
    const char *end = text + size;
    const char *colon = memchr(text, ':', size);
    Address read = {.family = AF_UNSPEC};
    uint16_t port = 0;

    if (size > 0 && *text == '[') {
        const char *close = memchr(text, ']', size);
        if (close == NULL || !parse_host(&read, AF_INET6, text + 1,
                                         (size_t)(close - text) - 1)) {
            return false;
        }
        colon = close + 1;
        if (colon < end && *colon != ':') {
            return false;
        }
    } else if (colon && memchr(colon + 1, ':', (size_t)(end - colon) - 1)) {
        if (!parse_host(&read, AF_INET6, text, size)) {
            return false;
        }
        colon = end; /* two of them: none is a port's */
    } else {
        if (colon == NULL) {
            colon = end;
        }
        const size_t name = (size_t)(colon - text);
        if (!parse_host(&read, AF_INET, text, name) && !is_hidden(text, name) &&
            !http1_is_word(text, name, "unknown")) {
            return false;
        }
    }
    if (colon < end &&
        !parse_port(&port, colon + 1, (size_t)(end - colon) - 1)) {
        return false;
    }
    if (read.family != AF_UNSPEC) {
        read.port = port;
    }
    *address = read;
    return true;
}
