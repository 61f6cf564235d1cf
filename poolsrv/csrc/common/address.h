/* Addresses of clients and proxies, and networks of them.
 *
 * Pure C: knows no sockets and no names, only numbers.
 */
#ifndef POOLSRV_ADDRESS_H
#define POOLSRV_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct {
    uint8_t bytes[16]; /* network byte order; of IPv4 the first 4 count */
    uint16_t port;     /* host byte order; 0: not known */
    uint8_t family;    /* AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: not known */
} Address;

typedef struct {
    uint8_t bytes[16];
    uint8_t family; /* AF_INET, AF_INET6; AF_UNIX: all Unix sockets' peers */
    uint8_t bits;   /* of `bytes`, that an address must share */
} Network;

typedef struct {
    const Network *items;
    uint32_t count;
} Networks;

/* The size of an address in bytes: 4, 16, or 0 if the family has none. */
static inline size_t
address_size(uint8_t family)
{
    return family == AF_INET ? 4 : family == AF_INET6 ? 16 : 0;
}

/* From the bytes of an in_addr or in6_addr. IPv4 that is written as IPv6
 * (::ffff:1.2.3.4, RFC 4291 section 2.5.5.2) becomes IPv4: one host, one
 * address, by whichever socket it came. */
Address address_of(uint8_t family, const void *bytes, uint16_t port);

/* Whether one of the networks has the address. */
bool address_within(const Address *address, const Networks *networks);

#endif
