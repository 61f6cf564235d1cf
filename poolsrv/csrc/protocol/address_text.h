/* Addresses as proxies and clients write them.
 *
 * Pure C, no state.
 */
#ifndef POOLSRV_ADDRESS_TEXT_H
#define POOLSRV_ADDRESS_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/address.h"

/* Read a node of RFC 7239 section 6: `1.2.3.4`, `[2001:db8::1]`, `unknown` or
 * `_hidden` (AF_UNSPEC), each of them also with `:port` or `:_hidden` (0); or
 * a bare `2001:db8::1`. False: it is none of these. */
bool address_text_parse(Address *address, const char *text, size_t size);

#endif
