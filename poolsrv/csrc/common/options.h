/* Every option that the core knows: a row names the field of `Settings`
 * (poolsrv/settings/rows.py), and from it derive the member of the struct that
 * C reads, and how Python fills it (python/options.h). `_core.OPTIONS` has the
 * names, so nothing in between lists them again. What a value means, 0 above
 * all, is said there and in SETTINGS.md.
 *
 * O(kind, name, values), the kinds:
 *   SECONDS  a number of seconds; here nanoseconds, like all times
 *   BYTES    a number
 *   BOUND    a number of bytes, of which 0 means none; here UINT64_MAX
 *   COUNT    a number
 *   SWITCH   a bool
 *   CHOICE   one of the texts in `values` ("|a|b"); here which, from 0 on
 *   NAME     a short text, empty for none
 *   CHOICES  some of them; here a set, with the bit 1 << which for each
 */
#ifndef POOLSRV_OPTIONS_H
#define POOLSRV_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define OPTION_SECONDS_TYPE uint64_t
#define OPTION_BYTES_TYPE uint64_t
#define OPTION_BOUND_TYPE uint64_t
#define OPTION_COUNT_TYPE uint32_t
#define OPTION_SWITCH_TYPE bool
#define OPTION_CHOICE_TYPE uint32_t
#define OPTION_CHOICES_TYPE uint32_t
#define OPTION_NAME_TYPE OptionName

#define OPTION_NAME_MOST 64

typedef struct {
    uint32_t size;
    char text[OPTION_NAME_MOST];
} OptionName;

#define OPTION_MEMBER(kind, name, values) OPTION_##kind##_TYPE name;

#define OPTION_ENUM(name, text) name,
#define OPTION_TEXT(name, text) "|" text

/* Which fields of trusted proxies are believed. */
#define FORWARDED_FAMILIES(X)     \
    X(FORWARDED_OFF, "off")       \
    X(FORWARDED_X, "x-forwarded") \
    X(FORWARDED_STANDARD, "forwarded")

typedef enum { FORWARDED_FAMILIES(OPTION_ENUM) } ForwardedFamily;

/* What they may say. A proxy that sets one of them and passes the others
 * through would let its clients say them. */
#define FORWARDED_PARTS(X)      \
    X(FORWARDED_FOR, "for")     \
    X(FORWARDED_PROTO, "proto") \
    X(FORWARDED_HOST, "host")   \
    X(FORWARDED_PORT, "port")   \
    X(FORWARDED_PREFIX, "prefix")

typedef enum {
    FORWARDED_PARTS(OPTION_ENUM) FORWARDED_PART_COUNT
} ForwardedPart;

#define ON_OR_OFF(X)     \
    X(OPTION_OFF, "off") \
    X(OPTION_ON, "on")

enum { ON_OR_OFF(OPTION_ENUM) };

#define LOG_FORMATS(X)  \
    X(LOG_TEXT, "text") \
    X(LOG_JSON, "json")

enum { LOG_FORMATS(OPTION_ENUM) };

/* What the supervisor's loop acts on. */
#define SUPERVISOR_OPTIONS(O)          \
    O(SECONDS, header_timeout, "")     \
    O(SECONDS, keep_alive_timeout, "") \
    O(SECONDS, queue_timeout, "")      \
    O(COUNT, queue_size, "")           \
    O(COUNT, queue_overtaking, "")     \
    O(SWITCH, server_header, "")       \
    O(SWITCH, date_header, "")         \
    O(CHOICE, log_format, LOG_FORMATS(OPTION_TEXT))

/* What a worker acts on as it reads, writes and logs. */
#define WORKER_OPTIONS(O)                                      \
    O(COUNT, limit_request_line, "")                           \
    O(COUNT, limit_request_fields, "")                         \
    O(COUNT, limit_request_field_size, "")                     \
    O(BOUND, limit_request_body, "")                           \
    O(BYTES, body_buffer, "")                                  \
    O(SWITCH, request_buffering, "")                           \
    O(BYTES, response_buffer, "")                              \
    O(BOUND, worker_buffer, "")                                \
    O(BOUND, worker_spool, "")                                 \
    O(COUNT, keep_alive_requests, "")                          \
    O(SECONDS, header_timeout, "")                             \
    O(SECONDS, body_timeout, "")                               \
    O(BYTES, body_min_rate, "")                                \
    O(SECONDS, send_timeout, "")                               \
    O(SECONDS, request_timeout, "")                            \
    O(SECONDS, interrupt_timeout, "")                          \
    O(SECONDS, watchdog_timeout, "")                           \
    O(BYTES, send_min_rate, "")                                \
    O(SECONDS, keep_alive_timeout, "")                         \
    O(COUNT, upgraded_connections, "")                         \
    O(CHOICE, proxy_protocol, ON_OR_OFF(OPTION_TEXT))          \
    O(SWITCH, server_header, "")                               \
    O(NAME, request_id_header, "")                             \
    O(SWITCH, date_header, "")                                 \
    O(CHOICE, forwarded, FORWARDED_FAMILIES(OPTION_TEXT))      \
    O(CHOICES, forwarded_fields, FORWARDED_PARTS(OPTION_TEXT)) \
    O(CHOICE, log_format, LOG_FORMATS(OPTION_TEXT))

#endif
