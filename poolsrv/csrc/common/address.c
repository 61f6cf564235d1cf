/* Addresses and networks: see address.h. */
#include "common/address.h"

#include <string.h>

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
            same_bits(network->bytes, address->bytes, network->bits)) {
            return true;
        }
    }
    return false;
}
