/* Addresses and networks: see address.h. */
#include "address.h"

#include <arpa/inet.h>
#include <string.h>

#include "http1_lex.h"

Address
address_of(uint8_t family, const void *bytes, uint16_t port)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    Address address = {.family = family, .port = port};
    if (family == AF_INET6 && memcmp(bytes, mapped, sizeof mapped) == 0) {
        bytes = (const uint8_t *)bytes + sizeof mapped;
        address.family = AF_INET;
    }
    memcpy(address.bytes, bytes, address_size(address.family));
    return address;
}

static bool
parse_port(uint16_t *port, const char *text, size_t size)
{
    size_t i;
    if (size > 1 && text[0] == '_') {
        for (i = 1; i < size; i++)
            if (!is(text[i], TCHAR))
                return false;
        *port = 0;
        return true;
    }
    const int64_t number = size > 5 ? -1 : http1_decimal(text, size);
    *port = (uint16_t)number;
    return number >= 0 && number <= UINT16_MAX;
}

bool
address_parse(Address *address, const char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN];
    uint8_t bytes[16];
    uint16_t port = 0;
    uint8_t family = AF_INET;
    const char *start = text;
    const char *end = text + size; /* of the host */
    const char *colon = memchr(text, ':', size);

    if (size > 0 && text[0] == '[') {
        family = AF_INET6;
        start = text + 1;
        end = memchr(text, ']', size);
        if (end == NULL)
            return false;
        colon = end + 1 < text + size ? end + 1 : NULL;
        if (colon && *colon != ':')
            return false;
    } else if (colon &&
               memchr(colon + 1, ':', size - (size_t)(colon - text) - 1)) {
        family = AF_INET6; /* bare: its colons are no port's */
        colon = NULL;
    } else if (colon) {
        end = colon;
    }
    if (colon &&
        !parse_port(&port, colon + 1, (size_t)(text + size - colon) - 1))
        return false;
    const size_t length = (size_t)(end - start);
    if (length >= sizeof host || memchr(start, '\0', length))
        return false;
    memcpy(host, start, length);
    host[length] = '\0';
    if (inet_pton(family, host, bytes) != 1)
        return false;
    *address = address_of(family, bytes, port);
    return true;
}

static bool
same_bits(const uint8_t *a, const uint8_t *b, uint8_t bits)
{
    const uint8_t whole = bits / 8, rest = bits % 8;
    const uint8_t mask = (uint8_t)(0xff00 >> rest);
    return memcmp(a, b, whole) == 0 &&
           (rest == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
}

bool
address_within(const Address *address, const Networks *networks)
{
    uint32_t i;
    for (i = 0; i < networks->count; i++) {
        const Network *network = &networks->items[i];
        if (network->family == address->family &&
            same_bits(network->bytes, address->bytes, network->bits))
            return true;
    }
    return false;
}
